//! Asking a relay over HTTP.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;

use crate::api::SCHEMA;
use crate::api::types::{Document, Failure};

/// Where a relay's API is unless its configuration says otherwise.
pub(super) const DEFAULT_API: &str = "http://127.0.0.1:7480";
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Longer than the relay gives itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// The most bytes of an answer: `export` of some thousand relays.
const MAX_ANSWER: u64 = 256 << 20;

/// The way to one relay.
pub(super) struct Client {
    base: String,
    agent: ureq::Agent,
}

/// A document: as it came, and as data.
pub(super) struct Answer<T> {
    pub(super) json: String,
    pub(super) body: T,
}

impl Client {
    pub(super) fn new(api: &str) -> Self {
        let api = api.trim_end_matches('/');
        let base = if api.contains("://") { api.into() } else { format!("http://{api}") };
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_WITHIN))
            .timeout_global(Some(ANSWER_WITHIN))
            .http_status_as_error(false)
            // A relay is asked directly; a proxy for web pages would not find 127.0.0.1.
            .proxy(None)
            .build();
        Self { base, agent: config.into() }
    }

    /// What `/api/v1/page` answers.
    pub(super) fn get<T: DeserializeOwned>(
        &self,
        page: &str,
        parameters: &[(&str, &str)],
    ) -> anyhow::Result<Answer<T>> {
        let base = &self.base;
        let request = self.agent.get(format!("{base}/api/v1/{page}"));
        let request = parameters.iter().fold(request, |it, &(key, value)| it.query(key, value));
        let mut response = request.call().map_err(|error| {
            let why = error.to_string();
            let why = why.trim_start_matches("io: ");
            anyhow!(
                "no relay answers at {base} ({why}); start one with `tradewind relay --config FILE`, or say where it is with --api URL"
            )
        })?;
        let status = response.status();
        let json = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
        let json = json.with_context(|| format!("the answer of {base} broke off"))?;
        if !status.is_success() {
            bail!(refusal(base, status.as_u16(), &json));
        }
        let document: Document<T> = serde_json::from_str(&json).with_context(|| strange(base))?;
        if document.schema != SCHEMA {
            bail!(
                "the relay at {base} speaks schema {}, this command {SCHEMA}; use the same version for both",
                document.schema
            );
        }
        Ok(Answer { json, body: document.body })
    }
}

fn refusal(base: &str, status: u16, json: &str) -> String {
    match serde_json::from_str::<Failure>(json) {
        Ok(Failure { error }) => error,
        Err(_) => format!("{} (it answered with status {status})", strange(base)),
    }
}

fn strange(base: &str) -> String {
    format!(
        "what answers at {base} is not the admin API of a Tradewind relay; say where it is with --api URL"
    )
}
