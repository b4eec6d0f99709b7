//! The file as tables of values that know where they stand.
//!
//! Reads TOML with positions, lays overrides over it, refuses unknown keys at once (before a
//! misspelled key is reported as missing), and gives each value out with its [`Place`].

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place, Problem, hint};
use super::overrides::Overrides;

/// The plain tables and their keys.
pub(super) const TABLES: &[(&str, &[&str])] = &[
    ("node", &["id", "location"]),
    ("overlay", &["listen", "advertise", "peers", "mesh", "mtu"]),
    ("identity", &["ca", "cert", "key"]),
    ("admin", &["listen"]),
    ("log", &["filter", "format"]),
];

/// The tables that may stand several times, their keys and how many of them there may be.
pub(super) const ARRAYS: &[(&str, &[&str], usize)] = &[
    ("service", &["name", "target"], super::MAX_SERVICES),
    (
        "tunnel",
        &["listen", "service", "class", "deadline", "policy", "redundancy"],
        super::MAX_TUNNELS,
    ),
    (
        "policy",
        &[
            "name",
            "allow_regions",
            "deny_regions",
            "allow_countries",
            "deny_countries",
            "deny_pops",
            "deny_providers",
        ],
        super::MAX_POLICIES,
    ),
];

/// A file whose keys are all known.
pub(super) struct Document<'a> {
    path: Arc<PathBuf>,
    text: &'a str,
    root: DeTable<'a>,
    overrides: &'a Overrides,
}

impl<'a> Document<'a> {
    pub(super) fn parse(
        path: Arc<PathBuf>,
        text: &'a str,
        overrides: &'a Overrides,
    ) -> Result<Self, ConfigError> {
        let root = DeTable::parse(text).map_err(|error| {
            let place = error.span().map_or_else(
                || Place::File(Arc::clone(&path)),
                |span| Place::Line(Arc::clone(&path), line_of(text, span.start)),
            );
            Problem::Syntax(error.message().replace('\n', ", ")).at(&place)
        })?;
        let document = Self { path, text, root: root.into_inner(), overrides };
        document.check_keys()?;
        Ok(document)
    }

    /// The file as a place: of what it lacks.
    pub(super) fn place(&self) -> Place {
        Place::File(Arc::clone(&self.path))
    }

    /// A plain table; one that is not in the file is empty.
    pub(super) fn table(&self, name: &'static str) -> Section<'_> {
        let table = self.root.get(name).and_then(|value| value.get_ref().as_table());
        Section { document: self, name, place: self.place(), table, overridable: true }
    }

    /// Every table of an array, in the file's order.
    pub(super) fn array(&self, name: &'static str) -> Vec<Section<'_>> {
        let elements = self.root.get(name).and_then(|value| value.get_ref().as_array());
        let section = |element: &'_ Spanned<DeValue<'a>>| self.line(element.span().start);
        elements
            .into_iter()
            .flat_map(|array| array.iter())
            .map(|element| Section {
                document: self,
                name,
                place: section(element),
                table: element.get_ref().as_table(),
                overridable: false,
            })
            .collect()
    }

    fn line(&self, offset: usize) -> Place {
        Place::Line(Arc::clone(&self.path), line_of(self.text, offset))
    }

    fn check_keys(&self) -> Result<(), ConfigError> {
        for (key, value) in &self.root {
            let (name, at) = (key.get_ref().as_ref(), self.line(key.span().start));
            if let Some((_, keys)) = TABLES.iter().find(|(table, _)| *table == name) {
                self.check_table(name, keys, value, &at)?;
            } else if let Some((_, keys, most)) = ARRAYS.iter().find(|(array, ..)| *array == name) {
                self.check_array(name, keys, *most, value, &at)?;
            } else {
                return Err(self.unknown_table(name).at(&at));
            }
        }
        Ok(())
    }

    fn unknown_table(&self, name: &str) -> Problem {
        let tables = TABLES.iter().map(|&(table, _)| table);
        let known = tables.chain(ARRAYS.iter().map(|&(array, ..)| array));
        Problem::UnknownKey { key: name.into(), hint: hint(name, known) }
    }

    fn check_table(
        &self,
        name: &str,
        keys: &[&str],
        value: &Spanned<DeValue<'_>>,
        at: &Place,
    ) -> Result<(), ConfigError> {
        let Some(table) = value.get_ref().as_table() else {
            let wanted = "a table: write its name in brackets on a line of its own";
            return Err(wrong_type(name.into(), value.get_ref(), wanted).at(at));
        };
        for key in table.keys() {
            let given = key.get_ref().as_ref();
            if !keys.contains(&given) {
                let hint = hint(given, keys.iter().copied());
                let problem = Problem::UnknownKey { key: format!("{name}.{given}"), hint };
                return Err(problem.at(&self.line(key.span().start)));
            }
        }
        Ok(())
    }

    fn check_array(
        &self,
        name: &str,
        keys: &[&str],
        most: usize,
        value: &Spanned<DeValue<'_>>,
        at: &Place,
    ) -> Result<(), ConfigError> {
        let Some(array) = value.get_ref().as_array() else {
            let wanted = "a list of tables: write its name in double brackets on a line of its own";
            return Err(wrong_type(name.into(), value.get_ref(), wanted).at(at));
        };
        if array.len() > most {
            let why = format!("there are {}, but at most {most} are allowed", array.len());
            return Err(Problem::value(name, why).at(at));
        }
        for element in array.iter() {
            let at = self.line(element.span().start);
            self.check_table(name, keys, element, &at)?;
        }
        Ok(())
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&byte| byte == b'\n').count()
}

fn wrong_type(key: String, value: &DeValue<'_>, wanted: &'static str) -> Problem {
    let article = if value.type_str().starts_with(['a', 'i']) { "an" } else { "a" };
    Problem::Type { key, found: format!("{article} {}", value.type_str()), wanted }
}

/// One table.
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    name: &'static str,
    /// Where it stands: of what it lacks.
    pub(super) place: Place,
    table: Option<&'a DeTable<'a>>,
    overridable: bool,
}

/// A value as it was given.
pub(super) struct Given<T> {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: T,
}

impl<T> Given<T> {
    /// Makes a checked value of it.
    pub(super) fn check<U, E: fmt::Display>(
        self,
        check: impl FnOnce(T) -> Result<U, E>,
    ) -> Result<U, ConfigError> {
        let Self { key, place, value } = self;
        check(value).map_err(|why| Problem::value(key, why).at(&place))
    }
}

/// What one element of a value may be.
trait Element: Sized {
    fn from_value(value: &DeValue<'_>) -> Option<Self>;
    fn from_text(text: &str) -> Option<Self>;
}

impl Element for String {
    fn from_value(value: &DeValue<'_>) -> Option<Self> {
        value.as_str().map(Into::into)
    }

    fn from_text(text: &str) -> Option<Self> {
        Some(text.into())
    }
}

impl Element for i64 {
    fn from_value(value: &DeValue<'_>) -> Option<Self> {
        let integer = value.as_integer()?;
        Self::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Element for f64 {
    fn from_value(value: &DeValue<'_>) -> Option<Self> {
        match value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            _ => i64::from_value(value).map(|integer| integer as Self),
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Section<'_> {
    /// `key` with the table's name.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.name)
    }

    /// The error for a key that must be there.
    pub(super) fn missing(&self, key: &str, todo: &'static str) -> ConfigError {
        Problem::Missing { key: self.key(key), todo }.at(&self.place)
    }

    /// A string.
    pub(super) fn text(
        &self,
        key: &str,
        wanted: &'static str,
    ) -> Result<Option<Given<String>>, ConfigError> {
        self.value(key, wanted, String::from_value, String::from_text)
    }

    /// A whole number.
    pub(super) fn integer(
        &self,
        key: &str,
        wanted: &'static str,
    ) -> Result<Option<Given<i64>>, ConfigError> {
        self.value(key, wanted, i64::from_value, i64::from_text)
    }

    /// A list of strings; a lone string is a list of one.
    pub(super) fn texts(
        &self,
        key: &str,
        wanted: &'static str,
    ) -> Result<Option<Given<Vec<String>>>, ConfigError> {
        let one_or_more = |value: &DeValue<'_>| match String::from_value(value) {
            Some(text) => Some(vec![text]),
            None => list(value),
        };
        self.value(key, wanted, one_or_more, split)
    }

    /// A list of numbers.
    pub(super) fn numbers(
        &self,
        key: &str,
        wanted: &'static str,
    ) -> Result<Option<Given<Vec<f64>>>, ConfigError> {
        self.value(key, wanted, list, split)
    }

    fn value<T>(
        &self,
        key: &str,
        wanted: &'static str,
        from_value: impl FnOnce(&DeValue<'_>) -> Option<T>,
        from_text: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<Given<T>>, ConfigError> {
        let name = self.key(key);
        let overridden = self.document.overrides.get(&name).filter(|_| self.overridable);
        if let Some((place, text)) = overridden {
            return match from_text(text) {
                Some(value) => Ok(Some(Given { key: name, place: place.clone(), value })),
                None => {
                    Err(Problem::Type { key: name, found: format!("{text:?}"), wanted }.at(place))
                }
            };
        }
        let Some(value) = self.table.and_then(|table| table.get(key)) else { return Ok(None) };
        let place = self.document.line(value.span().start);
        match from_value(value.get_ref()) {
            Some(value) => Ok(Some(Given { key: name, place, value })),
            None => Err(wrong_type(name, value.get_ref(), wanted).at(&place)),
        }
    }
}

fn list<T: Element>(value: &DeValue<'_>) -> Option<Vec<T>> {
    value.as_array()?.iter().map(|element| T::from_value(element.get_ref())).collect()
}

fn split<T: Element>(text: &str) -> Option<Vec<T>> {
    let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
    elements.map(T::from_text).collect()
}
