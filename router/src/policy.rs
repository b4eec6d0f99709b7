//! Policies as hard constraints: which relays a packet may visit, ends included.
//!
//! Judged by the labels in the relays' *certificates* alone. A relay that is not allowed is not
//! in the graph of the search, so primaries, backups and detours can't use it whatever they cost.

use std::collections::BTreeMap;

use serde::Serialize;
use tradewind_proto::statement::Rule;
use tradewind_proto::units::{PolicyId, PopId};

use crate::lsdb::{Labels, Lsdb};

/// Why a policy keeps packets off a relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Denied {
    /// Its region is not on the allow list.
    #[error("its region {0} is not allowed")]
    RegionNotAllowed(String),
    /// Its certificate names no region, and there is an allow list.
    #[error("its certificate names no region")]
    RegionUnknown,
    /// Its region is on the deny list.
    #[error("its region {0} is denied")]
    RegionDenied(String),
    /// Its country is not on the allow list.
    #[error("its country {0} is not allowed")]
    CountryNotAllowed(String),
    /// Its certificate names no country, and there is an allow list.
    #[error("its certificate names no country")]
    CountryUnknown,
    /// Its country is on the deny list.
    #[error("its country {0} is denied")]
    CountryDenied(String),
    /// It is denied by name.
    #[error("it is denied by name")]
    PopDenied,
    /// Its provider is on the deny list.
    #[error("its provider {0} is denied")]
    ProviderDenied(String),
    /// A list denies by region, country or provider, and the certificate does not name it.
    #[error("its certificate does not name its {0}, which the policy judges")]
    LabelUnknown(&'static str),
}

/// A policy to judge relays by. Without rules it allows all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judge {
    /// Usually one. Should two rules ever have the same id (32 bits can be made to collide),
    /// both bind: a forged rule can only narrow what another one allows.
    rules: Vec<Rule>,
}

impl Judge {
    /// What the members define `id` as; `None` if nobody does. [`PolicyId::NONE`] allows all.
    pub fn find(lsdb: &Lsdb, id: PolicyId) -> Option<Self> {
        if id == PolicyId::NONE {
            return Some(Self::default());
        }
        let mut rules: Vec<Rule> = Vec::new();
        for (_, policy) in lsdb.members().flat_map(|m| m.policies()).filter(|(of, _)| *of == id) {
            if !rules.contains(policy.rule()) {
                rules.push(policy.rule().clone());
            }
        }
        (!rules.is_empty()).then_some(Self { rules })
    }

    /// One rule by itself.
    pub fn of(rule: Rule) -> Self {
        Self { rules: vec![rule] }
    }

    /// Whether packets may visit the relay `pop` whose certificate says `labels`.
    pub fn admit(&self, pop: &PopId, labels: &Labels) -> Result<(), Denied> {
        self.rules.iter().try_for_each(|rule| admit(rule, pop, labels))
    }
}

/// The names under which members define policies, the first by name of the relay.
pub(crate) fn names(lsdb: &Lsdb) -> BTreeMap<PolicyId, String> {
    let mut names = BTreeMap::new();
    for (id, policy) in lsdb.members().flat_map(|member| member.policies()) {
        names.entry(id).or_insert_with(|| policy.name().to_owned());
    }
    names
}

fn admit(rule: &Rule, pop: &PopId, labels: &Labels) -> Result<(), Denied> {
    if rule.deny_pops.contains(pop) {
        return Err(Denied::PopDenied);
    }
    let Labels { region, country, provider } = labels;
    allowed(&rule.allow_regions, region, Denied::RegionUnknown, Denied::RegionNotAllowed)?;
    allowed(&rule.allow_countries, country, Denied::CountryUnknown, Denied::CountryNotAllowed)?;
    denied(&rule.deny_regions, region, "region", Denied::RegionDenied)?;
    denied(&rule.deny_countries, country, "country", Denied::CountryDenied)?;
    denied(&rule.deny_providers, provider, "provider", Denied::ProviderDenied)
}

/// An empty list allows all; any other only what it names, so not what has no label.
fn allowed(
    list: &[String],
    label: &Option<String>,
    unknown: Denied,
    refused: fn(String) -> Denied,
) -> Result<(), Denied> {
    match label {
        _ if list.is_empty() => Ok(()),
        Some(label) if list.contains(label) => Ok(()),
        Some(label) => Err(refused(label.clone())),
        None => Err(unknown),
    }
}

/// What has no label might be what the list denies: a constraint that fails closed refuses it.
fn denied(
    list: &[String],
    label: &Option<String>,
    what: &'static str,
    refused: fn(String) -> Denied,
) -> Result<(), Denied> {
    match label {
        _ if list.is_empty() => Ok(()),
        Some(label) if list.contains(label) => Err(refused(label.clone())),
        Some(_) => Ok(()),
        None => Err(Denied::LabelUnknown(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn labels(region: &str, country: &str, provider: &str) -> Labels {
        let label = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Labels { region: label(region), country: label(country), provider: label(provider) }
    }

    #[test]
    fn relays_are_judged_by_their_labels() {
        let eu = Rule { allow_regions: list(&["EU"]), ..Rule::default() };
        let not_us = Rule { deny_countries: list(&["US"]), ..Rule::default() };
        let no_acme = Rule { deny_providers: list(&["acme"]), ..Rule::default() };
        let not_fra = Rule { deny_pops: vec!["fra".parse().unwrap()], ..Rule::default() };
        let both = Rule { deny_countries: list(&["DE"]), ..eu.clone() };
        let cases = [
            (&Rule::default(), labels("", "", ""), Ok(())),
            (&eu, labels("EU", "DE", ""), Ok(())),
            (&eu, labels("eu", "", ""), Err(Denied::RegionNotAllowed("eu".into()))),
            (&eu, labels("", "", ""), Err(Denied::RegionUnknown)),
            (&not_us, labels("", "US", ""), Err(Denied::CountryDenied("US".into()))),
            (&not_us, labels("", "", ""), Err(Denied::LabelUnknown("country"))),
            (&not_us, labels("", "DE", ""), Ok(())),
            (&no_acme, labels("", "", "acme"), Err(Denied::ProviderDenied("acme".into()))),
            (&not_fra, labels("EU", "DE", "x"), Err(Denied::PopDenied)),
            (&both, labels("EU", "DE", ""), Err(Denied::CountryDenied("DE".into()))),
            (&both, labels("EU", "FR", ""), Ok(())),
        ];
        for (rule, labels, verdict) in cases {
            let judge = Judge { rules: vec![rule.clone()] };
            assert_eq!(judge.admit(&"fra".parse().unwrap(), &labels), verdict, "{rule:?}");
        }
    }

    #[test]
    fn of_two_rules_with_one_id_both_bind() {
        let eu = Rule { allow_regions: list(&["EU"]), ..Rule::default() };
        let judge = Judge { rules: vec![Rule::default(), eu] };
        assert!(judge.admit(&"nyc".parse().unwrap(), &labels("US", "US", "")).is_err());
    }
}
