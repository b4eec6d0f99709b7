//! Policies: rules about the relays that a packet may visit, and the ids that stand for them.

use bytes::BufMut;

use crate::units::{PolicyId, PopId, fnv1a};
use crate::wire::{Reader, WireError, check_order, check_text, put_count, put_text};

/// The longest name of a policy and the longest label, in bytes.
pub const MAX_LABEL: usize = 64;
/// The most entries of one list of a rule.
pub const MAX_LIST: usize = 256;
/// The longest rule, encoded: so that the most policies fit into one statement.
pub const MAX_RULE: usize = 2048;

/// A hard constraint on the relays that a packet may visit. Empty allow lists allow all.
///
/// Lists are sorted and free of duplicates; made by [`Policy::new`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    name: String,
    rule: Rule,
    id: PolicyId,
}

/// The lists of a policy. Regions, countries and providers are compared with the labels in
/// certificates, byte for byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Only these regions.
    pub allow_regions: Vec<String>,
    /// Not these regions.
    pub deny_regions: Vec<String>,
    /// Only these countries.
    pub allow_countries: Vec<String>,
    /// Not these countries.
    pub deny_countries: Vec<String>,
    /// Not these PoPs.
    pub deny_pops: Vec<PopId>,
    /// Not these providers.
    pub deny_providers: Vec<String>,
}

const LABEL: &str = "label of a policy";
const LABELS: &str = "labels of a policy";
const POPS: &str = "PoPs of a policy";
const NAME: &str = "name of a policy";
const SHORTEST_TEXT: usize = 2;

impl Policy {
    /// The fewest bytes of an encoded policy.
    pub(super) const LEAST: usize = SHORTEST_TEXT + 6 * 2;

    /// A policy with its lists sorted.
    ///
    /// Refuses a name or label that is empty, longer than [`MAX_LABEL`] bytes or contains control
    /// characters, lists of over [`MAX_LIST`] entries, and a rule of over [`MAX_RULE`] bytes.
    pub fn new(name: impl Into<String>, mut rule: Rule) -> Result<Self, WireError> {
        let name = name.into();
        check_text(NAME, &name, MAX_LABEL)?;
        rule.normalise();
        rule.check()?;
        let mut encoded = Vec::new();
        rule.encode(&mut encoded);
        if encoded.len() > MAX_RULE {
            let (what, len, limit) = ("rule of a policy", encoded.len(), MAX_RULE);
            return Err(WireError::Length { what, len, limit });
        }
        // Zero means no policy.
        let id = PolicyId(fnv1a(&encoded).max(1));
        Ok(Self { name, rule, id })
    }

    /// As the configuration calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its lists.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// FNV-1a over the encoded rule without the name, so equal rules are one policy; never
    /// [`PolicyId::NONE`].
    pub fn id(&self) -> PolicyId {
        self.id
    }

    pub(super) fn encode(&self, out: &mut impl BufMut) {
        put_text(out, &self.name);
        self.rule.encode(out);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let name = reader.text(NAME, MAX_LABEL)?;
        let rule = Rule::decode(reader)?;
        Self::new(name, rule)
    }
}

impl Rule {
    fn normalise(&mut self) {
        for labels in [
            &mut self.allow_regions,
            &mut self.deny_regions,
            &mut self.allow_countries,
            &mut self.deny_countries,
            &mut self.deny_providers,
        ] {
            labels.sort_unstable();
            labels.dedup();
        }
        self.deny_pops.sort_unstable();
        self.deny_pops.dedup();
    }

    /// The lists of labels that stand before the PoPs on the wire, and the one behind them.
    fn labels(&self) -> ([&[String]; 4], &[String]) {
        let [regions, no_regions] = [&self.allow_regions[..], &self.deny_regions];
        let [countries, no_countries] = [&self.allow_countries[..], &self.deny_countries];
        ([regions, no_regions, countries, no_countries], &self.deny_providers)
    }

    fn check(&self) -> Result<(), WireError> {
        let (before, after) = self.labels();
        for labels in before.into_iter().chain([after]) {
            check_count(LABELS, labels.len())?;
            labels.iter().try_for_each(|label| check_text(LABEL, label, MAX_LABEL))?;
        }
        check_count(POPS, self.deny_pops.len())
    }

    /// Writes the lists, all of which are within their limits.
    fn encode(&self, out: &mut impl BufMut) {
        let (before, after) = self.labels();
        for labels in before {
            put_labels(out, labels.iter().map(String::as_str));
        }
        put_labels(out, self.deny_pops.iter().map(PopId::as_str));
        put_labels(out, after.iter().map(String::as_str));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            allow_regions: decode_labels(reader)?,
            deny_regions: decode_labels(reader)?,
            allow_countries: decode_labels(reader)?,
            deny_countries: decode_labels(reader)?,
            deny_pops: decode_pops(reader)?,
            deny_providers: decode_labels(reader)?,
        })
    }
}

fn check_count(what: &'static str, count: usize) -> Result<(), WireError> {
    match count <= MAX_LIST {
        true => Ok(()),
        false => Err(WireError::TooMany { what, count, limit: MAX_LIST }),
    }
}

fn put_labels<'a>(out: &mut impl BufMut, labels: impl ExactSizeIterator<Item = &'a str>) {
    put_count(out, labels.len());
    labels.for_each(|label| put_text(out, label));
}

fn decode_labels(reader: &mut Reader<'_>) -> Result<Vec<String>, WireError> {
    let read = |reader: &mut Reader<'_>| reader.text(LABEL, MAX_LABEL).map(String::from);
    let labels = reader.list(LABELS, MAX_LIST, SHORTEST_TEXT, read)?;
    check_order(LABELS, &labels, |label| label)?;
    Ok(labels)
}

fn decode_pops(reader: &mut Reader<'_>) -> Result<Vec<PopId>, WireError> {
    let read = |reader: &mut Reader<'_>| reader.name(POPS, PopId::MAX_LEN);
    let pops = reader.list(POPS, MAX_LIST, SHORTEST_TEXT, read)?;
    check_order(POPS, &pops, |pop| pop)?;
    Ok(pops)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn regions(list: &[&str]) -> Rule {
        Rule { allow_regions: labels(list), ..Rule::default() }
    }

    #[test]
    fn equal_rules_are_one_policy() {
        let one = Policy::new("eu", regions(&["EU", "CH", "EU"])).unwrap();
        let other = Policy::new("europe", regions(&["CH", "EU"])).unwrap();
        assert_eq!(one.id(), other.id());
        assert_eq!(one.rule(), other.rule());
        let denied = Rule { deny_regions: labels(&["CH", "EU"]), ..Rule::default() };
        assert_ne!(Policy::new("eu", denied).unwrap().id(), one.id());
    }

    #[test]
    fn ids_are_those_of_the_protocol() {
        let mut bytes = vec![0, 1, 2, b'E', b'U'];
        bytes.extend([0; 10]);
        let policy = Policy::new("eu-only", regions(&["EU"])).unwrap();
        assert_eq!(policy.id(), PolicyId(fnv1a(&bytes)));
        assert_eq!(policy.id(), PolicyId(EU_ONLY));
    }

    /// The id of "only the region EU": any change to it breaks overlays of mixed versions.
    const EU_ONLY: u32 = 0x8349_b696;

    #[test]
    fn limits_are_kept() {
        let many: Vec<String> = (0..257).map(|number| format!("r{number}")).collect();
        let long: Vec<String> = (0..200).map(|number| format!("region-{number:08}")).collect();
        let length = |what, len, limit| WireError::Length { what, len, limit };
        for (case, name, rule, error) in [
            ("no name", "", Rule::default(), length(NAME, 0, 64)),
            ("long name", &"x".repeat(65), Rule::default(), length(NAME, 65, 64)),
            ("name of two lines", "a\nb", Rule::default(), WireError::Text(NAME)),
            ("empty label", "eu", regions(&[""]), length(LABEL, 0, 64)),
            ("long label", "eu", regions(&[&"x".repeat(65)]), length(LABEL, 65, 64)),
            (
                "too many",
                "eu",
                Rule { deny_providers: many, ..Rule::default() },
                WireError::TooMany { what: LABELS, count: 257, limit: 256 },
            ),
            (
                "too long",
                "eu",
                Rule { deny_countries: long, ..Rule::default() },
                length("rule of a policy", 3212, MAX_RULE),
            ),
        ] {
            assert_eq!(Policy::new(name, rule), Err(error), "{case}");
        }
    }

    #[test]
    fn every_country_fits_into_a_rule() {
        let codes = (b'A'..=b'Z').flat_map(|a| (b'A'..=b'J').map(move |b| [a, b]));
        let codes = codes.map(|code| String::from_utf8_lossy(&code).into_owned());
        let rule = Rule { allow_countries: codes.take(256).collect(), ..Rule::default() };
        assert!(Policy::new("all", rule).is_ok());
    }

    #[test]
    fn lists_out_of_order_are_refused() {
        for (name, first, second) in [("unsorted", b'b', b'a'), ("twice", b'a', b'a')] {
            let mut bytes = vec![1, b'p', 0, 2, 1, first, 1, second];
            bytes.extend([0; 10]);
            let decoded = Policy::decode(&mut Reader::new(&bytes));
            assert_eq!(decoded, Err(WireError::Order(LABELS)), "{name}");
        }
    }
}
