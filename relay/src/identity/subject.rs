//! What a certificate says about its relay, as a URI in its subject alternative name:
//! `tradewind://pop/fra?region=EU&country=DE&provider=hetzner&service=sfu-fra&service=sfu-spare`.
//!
//! A URI rather than an extension of our own, because every tool that shows certificates shows
//! it (SPIFFE does the same). The alphabets of names and labels need no escaping, and there is
//! one spelling of each subject: keys in the order above, absent ones left out.

use std::fmt;
use std::str::FromStr;

use tradewind_proto::units::{NameError, PopId, ServiceName};
pub use tradewind_router::lsdb::Labels;

/// How every subject begins.
pub(super) const PREFIX: &str = "tradewind://pop/";
/// The most services that a certificate lists.
const MAX_SERVICES: usize = 256;
/// The longest label.
const MAX_LABEL: usize = 64;

/// The relay that a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its name.
    pub id: PopId,
    /// Its labels.
    pub labels: Labels,
    /// The services that it may advertise; `None`: all.
    pub services: Option<Vec<ServiceName>>,
}

/// Why a URI names no relay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// It begins otherwise.
    #[error("it does not begin with {PREFIX}")]
    Prefix,
    /// The relay's or a service's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A label.
    #[error("{0}")]
    Label(String),
    /// Something that is no known key with a value, or one out of order or repeated.
    #[error("{0:?} is unknown or in the wrong place")]
    Part(String),
    /// Too many services.
    #[error("it lists more than {MAX_SERVICES} services")]
    Services,
}

/// Refuses what is no label: 1 to 64 letters, digits, `.`, `_` or `-`.
pub fn check_label(label: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=MAX_LABEL).contains(&label.len()) && label.chars().all(allowed) {
        return Ok(());
    }
    let shown: String = label.chars().take(MAX_LABEL).collect();
    Err(format!("{shown:?} must be 1 to {MAX_LABEL} of A-Z, a-z, 0-9, '.', '_' and '-'"))
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Labels { region, country, provider } = &self.labels;
        let labels = [("region", region), ("country", country), ("provider", provider)];
        let labels = labels.into_iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
        let services = self.services.iter().flatten().map(|name| ("service", name.as_str()));
        write!(f, "{PREFIX}{}", self.id)?;
        let mut separator = '?';
        for (key, value) in labels.chain(services) {
            write!(f, "{separator}{key}={value}")?;
            separator = '&';
        }
        Ok(())
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(uri: &str) -> Result<Self, SubjectError> {
        let rest = uri.strip_prefix(PREFIX).ok_or(SubjectError::Prefix)?;
        let (id, query) = rest.split_once('?').map_or((rest, None), |(id, q)| (id, Some(q)));
        let mut subject = Self { id: id.parse()?, labels: Labels::default(), services: None };
        for part in query.into_iter().flat_map(|query| query.split('&')) {
            subject.read(part)?;
        }
        // Whatever is out of order or repeated would be written otherwise.
        if subject.to_string() == uri { Ok(subject) } else { Err(SubjectError::Part(rest.into())) }
    }
}

impl Subject {
    fn read(&mut self, part: &str) -> Result<(), SubjectError> {
        let unknown = || SubjectError::Part(part.chars().take(64).collect());
        let (key, value) = part.split_once('=').ok_or_else(unknown)?;
        let label = || check_label(value).map(|()| value.to_owned()).map_err(SubjectError::Label);
        match key {
            "region" => self.labels.region = Some(label()?),
            "country" => self.labels.country = Some(label()?),
            "provider" => self.labels.provider = Some(label()?),
            "service" => {
                let services = self.services.get_or_insert_default();
                if services.len() == MAX_SERVICES {
                    return Err(SubjectError::Services);
                }
                services.push(value.parse()?);
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// Whether it reads back from a certificate as it is: the fields are public, and a program may
    /// have put anything into the labels.
    pub fn check(&self) -> Result<(), SubjectError> {
        let written = self.to_string();
        if written.parse::<Self>()? == *self { Ok(()) } else { Err(SubjectError::Part(written)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_accepted_is_written_the_same(rest in "[a-z0-9/?&=.A-Zé-]{0,80}") {
            for uri in [rest.clone(), format!("{PREFIX}{rest}"), format!("{PREFIX}a?region={rest}")] {
                if let Ok(subject) = uri.parse::<Subject>() {
                    prop_assert_eq!(subject.to_string(), uri);
                    prop_assert!(subject.check().is_ok());
                }
            }
        }
    }

    #[test]
    fn subjects_have_one_spelling() {
        for uri in [
            "tradewind://pop/fra",
            "tradewind://pop/fra?region=EU",
            "tradewind://pop/fra?country=DE&provider=hetzner.1",
            "tradewind://pop/fra?region=EU&country=DE&provider=x&service=a&service=b",
        ] {
            let subject: Subject = uri.parse().expect(uri);
            assert_eq!(subject.to_string(), uri);
        }
    }

    #[test]
    fn what_is_no_subject_is_refused() {
        for uri in [
            "",
            "https://pop/fra",
            "tradewind://pop/",
            "tradewind://pop/FRA",
            "tradewind://pop/fra?",
            "tradewind://pop/fra?region",
            "tradewind://pop/fra?region=",
            "tradewind://pop/fra?region=E U",
            "tradewind://pop/fra?colour=red",
            "tradewind://pop/fra?country=DE&region=EU",
            "tradewind://pop/fra?region=EU&region=US",
            "tradewind://pop/fra?service=a@b",
        ] {
            assert!(uri.parse::<Subject>().is_err(), "{uri}");
        }
        let many = "service=a&".repeat(300);
        assert_eq!(
            format!("tradewind://pop/fra?{many}service=b").parse::<Subject>(),
            Err(SubjectError::Services)
        );
    }

    #[test]
    fn labels_that_would_become_others_are_found() {
        let labels = Labels { region: Some("EU&country=US".into()), ..Labels::default() };
        let subject = Subject { id: "fra".parse().unwrap(), labels, services: None };
        // It reads back as another subject, whose spelling is the same.
        assert!(subject.check().is_err());
    }
}
