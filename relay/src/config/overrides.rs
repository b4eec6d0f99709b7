//! Settings given beside the file: `TRADEWIND_OVERLAY__LISTEN=…` in the environment, and
//! `--set overlay.listen=…` on the command line, which wins.
//!
//! Only keys of plain tables can be given so, not `[[service]]`, `[[tunnel]]` and `[[policy]]`.
//! A list is written with commas between its elements.

use std::collections::BTreeMap;

use super::error::{ConfigError, Place, Problem, hint};
use super::read::TABLES;

/// Variables of our prefix that are no settings: the command line reads them.
const OTHER_VARIABLES: [&str; 2] = ["API", "CONFIG"];

/// Checked overrides by key, each with the place that won.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<String, (Place, String)>);

impl Overrides {
    /// From the environment's variables and the values of `--set`.
    pub fn new(
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &[String],
    ) -> Result<Self, ConfigError> {
        let mut overrides = Self::default();
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix("TRADEWIND_") else { continue };
            if OTHER_VARIABLES.contains(&name) || made_by_kubernetes(name) {
                continue;
            }
            let key = name.to_ascii_lowercase().replacen("__", ".", 1);
            let place = Place::Variable(variable);
            overrides.insert(key, place, value)?;
        }
        for flag in flags {
            let place = Place::Flag(format!("--set {flag}"));
            let Some((key, value)) = flag.split_once('=') else {
                let why = "write it as --set overlay.listen=0.0.0.0:7400";
                return Err(Problem::value(flag, why).at(&place));
            };
            overrides.insert(key.trim().into(), place, value.trim().into())?;
        }
        Ok(overrides)
    }

    pub(super) fn get(&self, key: &str) -> Option<&(Place, String)> {
        self.0.get(key)
    }

    fn insert(&mut self, key: String, place: Place, value: String) -> Result<(), ConfigError> {
        let known: Vec<String> = keys().collect();
        if !known.contains(&key) {
            let hint = match &place {
                Place::Variable(_) => {
                    let names: Vec<String> = known.iter().map(|key| variable(key)).collect();
                    hint(&variable(&key), names.iter().map(String::as_str))
                }
                _ => hint(&key, known.iter().map(String::as_str)),
            };
            return Err(Problem::UnknownKey { key, hint }.at(&place));
        }
        self.0.insert(key, (place, value));
        Ok(())
    }
}

/// The environment variable for a key.
fn variable(key: &str) -> String {
    format!("TRADEWIND_{}", key.to_ascii_uppercase().replacen('.', "__", 1))
}

fn keys() -> impl Iterator<Item = String> {
    TABLES.iter().flat_map(|(table, keys)| keys.iter().map(move |key| format!("{table}.{key}")))
}

/// Kubernetes puts variables named after every service into each container: one called
/// `tradewind` or `tradewind-fra` must not keep a relay from starting.
fn made_by_kubernetes(name: &str) -> bool {
    let padded = format!("_{name}_");
    !name.contains("__")
        && ["_SERVICE_HOST_", "_SERVICE_PORT_", "_PORT_"].iter().any(|part| padded.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)], flags: &[&str]) -> Result<Overrides, ConfigError> {
        let variables = variables.iter().map(|&(name, value)| (name.into(), value.into()));
        let flags: Vec<String> = flags.iter().map(|&flag| flag.into()).collect();
        Overrides::new(variables, &flags)
    }

    #[test]
    fn flags_win_over_variables() {
        let variables = [
            ("TRADEWIND_OVERLAY__LISTEN", "0.0.0.0:1"),
            ("TRADEWIND_NODE__ID", "fra"),
            ("TRADEWIND_API", "http://127.0.0.1:1"),
            ("TRADEWIND_PORT_7400_UDP_ADDR", "10.0.0.1"),
            ("TRADEWIND_FRA_SERVICE_HOST", "10.0.0.1"),
            ("HOME", "/root"),
        ];
        let overrides = from(&variables, &["overlay.listen = 0.0.0.0:2"]).unwrap();
        assert_eq!(overrides.get("overlay.listen").unwrap().1, "0.0.0.0:2");
        assert_eq!(overrides.get("node.id").unwrap().1, "fra");
        assert_eq!(overrides.0.len(), 2);
    }

    #[test]
    fn unknown_ones_are_refused() {
        for (variables, flags, sentence) in [
            (
                &[("TRADEWIND_OVERLAY_LISTEN", "")][..],
                &[][..],
                "environment variable TRADEWIND_OVERLAY_LISTEN: unknown key `overlay_listen`; did you mean `TRADEWIND_OVERLAY__LISTEN`?",
            ),
            (
                &[],
                &["overlay.listn=0.0.0.0:1"],
                "--set overlay.listn=0.0.0.0:1: unknown key `overlay.listn`; did you mean `overlay.listen`?",
            ),
            (
                &[],
                &["overlay.listen"],
                "--set overlay.listen: `overlay.listen`: write it as --set overlay.listen=0.0.0.0:7400",
            ),
        ] {
            assert_eq!(from(variables, flags).unwrap_err().to_string(), sentence);
        }
    }
}
