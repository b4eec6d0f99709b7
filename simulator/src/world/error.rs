//! What is wrong with a world file: one sentence with file, line and what was probably meant.

use std::fmt;
use std::ops::Range;

/// A world that can't be run, and where in its file the reason stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldError {
    /// The file, as it was named.
    pub file: String,
    /// Counted from 1; `None` when it is about no line in particular.
    pub line: Option<usize>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for WorldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for WorldError {}

/// A fault before it is known in which file and line it stands.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Option<Range<usize>>,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { at: Some(at), message: message.into() }
    }

    /// Of a file that is no valid TOML or has other keys than ours.
    pub(super) fn from_toml(error: &toml::de::Error) -> Self {
        let message = explain(error.message().trim_end());
        Self { at: error.span(), message }
    }

    pub(super) fn locate(self, file: &str, text: &str) -> WorldError {
        let line = self.at.map(|span| {
            let before = &text.as_bytes()[..span.start.min(text.len())];
            1 + before.iter().filter(|&&byte| byte == b'\n').count()
        });
        WorldError { file: file.to_owned(), line, message: self.message }
    }
}

/// Serde's sentence about an unknown key, with the nearest known one in place of the whole list.
fn explain(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let what = if message.starts_with("unknown field") {
        "key"
    } else if message.starts_with("unknown variant") {
        "value"
    } else {
        return message.to_owned();
    };
    let Some((unknown, known)) = quoted.split_first() else { return message.to_owned() };
    match nearest(unknown, known.iter().copied()) {
        Some(near) => format!("unknown {what} \"{unknown}\"; did you mean \"{near}\"?"),
        None => format!("unknown {what} \"{unknown}\"; known here: {}", known.join(", ")),
    }
}

/// The known word that `word` was probably meant to be: at most a third of its letters differ.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(word, other);
    let (near, candidate) = known.map(|other| (distance(other), other)).min()?;
    (near <= 1.max(word.chars().count() / 3)).then_some(candidate)
}

/// `; did you mean "…"?`, or nothing.
pub(crate) fn hint<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(word, known).map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_named_when_one_is_near() {
        let known = ["delay", "jitter", "loss", "rate"];
        for (word, near) in [
            ("dealy", Some("delay")),
            ("jiter", Some("jitter")),
            ("los", Some("loss")),
            ("colour", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), near, "{word}");
        }
    }
}
