//! What an operator got wrong, in one sentence: where, which key, and what to do.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a setting was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it is a default, or the configuration was made by a program.
    #[default]
    Nowhere,
    /// In the file as a whole.
    File(Arc<PathBuf>),
    /// In this line of the file, counted from 1.
    Line(Arc<PathBuf>, usize),
    /// In an environment variable.
    Variable(String),
    /// On the command line.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("configuration"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// Why a configuration is refused. Nothing of it is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// Where the mistake is.
    pub place: Place,
    /// What is wrong and what to do.
    pub problem: Problem,
}

/// What is wrong with a configuration. Keys are written with their table: `overlay.listen`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file can't be read.
    #[error("cannot be read ({0}); check the path given with --config")]
    Unreadable(String),
    /// It is no TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// A key that means nothing.
    #[error("unknown key `{key}`; {hint}")]
    UnknownKey {
        /// The key as given, with its table.
        key: String,
        /// The nearest known one, or all of them.
        hint: String,
    },
    /// A key without which a relay can't run.
    #[error("`{key}` is missing; {todo}")]
    Missing {
        /// The key.
        key: String,
        /// What to write.
        todo: &'static str,
    },
    /// A value of another type than the key takes.
    #[error("`{key}` is {found} but must be {wanted}")]
    Type {
        /// The key.
        key: String,
        /// The type given.
        found: String,
        /// What it takes, with an example.
        wanted: &'static str,
    },
    /// A value of the right type that can't be used.
    #[error("`{key}`: {why}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong with it and what to do.
        why: String,
    },
}

impl Problem {
    pub(super) fn value(key: impl Into<String>, why: impl fmt::Display) -> Self {
        Self::Value { key: key.into(), why: why.to_string() }
    }

    pub(super) fn at(self, place: &Place) -> ConfigError {
        ConfigError { place: place.clone(), problem: self }
    }
}

/// What to say about an unknown key: the one it was probably meant to be, else all that there are.
pub(super) fn hint<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = known.iter().map(|&name| (distance(given, name), name)).min();
    match nearest {
        Some((edits, name)) if edits <= name.len().div_ceil(3) => {
            format!("did you mean `{name}`?")
        }
        _ => format!("known are {}", list(&known)),
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The least number of characters to insert, delete, replace or swap with the next one that makes
/// `a` of `b`: optimal string alignment distance, row by row.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "abc", 3), ("listn", "listen", 1), ("lsiten", "listen", 1), ("mtu", "mesh", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn the_nearest_key_is_named_if_it_is_near() {
        assert_eq!(hint("listne", ["listen", "peers"]), "did you mean `listen`?");
        assert_eq!(hint("colour", ["listen", "peers"]), "known are `listen`, `peers`");
    }
}
