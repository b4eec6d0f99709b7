//! What a sweep varies: a key of the world file, and the values that it takes.

use std::str::FromStr;

use toml::{Table, Value};

use crate::world::hint;

/// Arrays of tables that a world file may have.
const ARRAYS: [&str; 6] = ["pop", "link", "traffic", "demand", "policy", "event"];

/// A key and its values, as in `link.loss=0,0.05,0.3`.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    key: String,
    values: Vec<String>,
}

impl Axis {
    /// The key: a path into the document, its parts separated by dots.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The values as they were written; at least one.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Gives the key its value number `which`, in every table that the path leads to.
    ///
    /// # Errors
    ///
    /// A path that leads nowhere. Whether the last key exists and may have such a value is for
    /// the world's own checks.
    pub(super) fn set(&self, document: &mut Table, which: usize) -> Result<(), String> {
        let path: Vec<&str> = self.key.split('.').collect();
        set(document, &path, &typed(&self.values[which]))
    }
}

impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, values) = text
            .split_once('=')
            .ok_or("write KEY=A,B,… such as link.loss=0,0.05,0.3 or run.duration=10s")?;
        let key = key.trim().to_owned();
        let parts: Vec<&str> = key.split('.').collect();
        if parts.len() < 2 || parts.iter().any(|part| part.is_empty()) {
            return Err(format!(
                "\"{key}\" is no path to a key, such as link.loss or run.duration"
            ));
        }
        let values: Vec<String> = split(values).into_iter().map(str::to_owned).collect();
        if values.iter().any(String::is_empty) {
            return Err(format!("{key} has an empty value; write {key}=A,B,…"));
        }
        Ok(Self { key, values })
    }
}

/// The parts between commas that stand in no quotes, brackets or braces.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut quote, mut begin) = (0_i32, None, 0);
    let mut parts = Vec::new();
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                parts.push(text[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[begin..].trim());
    parts
}

/// A value as TOML has it; what is none, as `20ms` or `arq`, is a string.
fn typed(text: &str) -> Value {
    let read = format!("value = {text}").parse::<Table>();
    let value = read.ok().and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn set(table: &mut Table, path: &[&str], value: &Value) -> Result<(), String> {
    let Some((&first, rest)) = path.split_first() else { return Ok(()) };
    if rest.is_empty() {
        table.insert(first.to_owned(), value.clone());
        return Ok(());
    }
    if ARRAYS.contains(&first) && !table.contains_key(first) {
        return Err(format!("the world file has no [[{first}]]"));
    }
    match table.entry(first).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => set(inner, rest, value),
        Value::Array(items) => set_in_items(first, items, rest, value),
        _ => Err(format!("\"{first}\" is a value, not a table with keys")),
    }
}

/// In the item that the path names, or in all.
fn set_in_items(
    kind: &str,
    items: &mut [Value],
    path: &[&str],
    value: &Value,
) -> Result<(), String> {
    let mut tables: Vec<&mut Table> = items.iter_mut().filter_map(Value::as_table_mut).collect();
    let names: Vec<Vec<String>> =
        tables.iter().enumerate().map(|(at, table)| names_of(kind, at, table)).collect();
    let (&first, rest) = path.split_first().unwrap_or((&"", &[]));
    let named = |at: &usize| names[*at].iter().any(|name| name == first);
    let chosen: Vec<usize> = (0..tables.len()).filter(named).collect();
    if !rest.is_empty() && !chosen.is_empty() {
        return chosen.into_iter().try_for_each(|at| set(tables[at], rest, value));
    }
    let within = tables.iter().any(|table| table.get(first).is_some_and(Value::is_table));
    if rest.is_empty() || within {
        return tables.iter_mut().try_for_each(|table| set(table, path, value));
    }
    let known = names.iter().flatten().map(String::as_str);
    Err(format!("there is no [[{kind}]] \"{first}\"{}", hint(first, known)))
}

/// How a path may call a table of an array: by its `name` or `id`, a link by its ends.
fn names_of(kind: &str, at: usize, table: &Table) -> Vec<String> {
    let text = |key: &str| table.get(key).and_then(Value::as_str);
    if let Some(pair) = table.get("between").and_then(Value::as_array)
        && let [Value::String(a), Value::String(b)] = &pair[..]
    {
        return vec![format!("{a}-{b}"), format!("{b}-{a}")];
    }
    if kind == "link"
        && let Some((from, to)) = text("from").zip(text("to"))
    {
        return vec![format!("{from}>{to}"), format!("{from}-{to}"), format!("{to}-{from}")];
    }
    match text("name").or(text("id")) {
        Some(name) => vec![name.to_owned()],
        None => vec![format!("{kind}-{}", at + 1)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORLD: &str = r#"
        [[pop]]
        id = "a"
        [[link]]
        between = ["a", "b-1"]
        delay = "20ms"
        [[link]]
        from = "b-1"
        to = "c"
        [[traffic]]
        name = "media"
        pps = 50
        assert = { in_time = 0.9 }
        [[traffic]]
        pps = 100
    "#;

    fn changed(text: &str) -> Result<Table, String> {
        let mut document: Table = WORLD.parse().unwrap();
        text.parse::<Axis>()?.set(&mut document, 0)?;
        Ok(document)
    }

    #[test]
    fn a_path_leads_to_all_tables_of_an_array_or_to_the_one_it_names() {
        let loss = |document: &Table| -> Vec<Option<f64>> {
            let links = document["link"].as_array().unwrap();
            links.iter().map(|link| link.get("loss").and_then(Value::as_float)).collect()
        };
        assert_eq!(loss(&changed("link.loss=0.05,0.1").unwrap()), [Some(0.05), Some(0.05)]);
        assert_eq!(loss(&changed("link.b-1-a.loss=0.05").unwrap()), [Some(0.05), None]);
        assert_eq!(loss(&changed("link.b-1>c.loss=0.05").unwrap()), [None, Some(0.05)]);
        let document = changed("traffic.media.pps=70").unwrap();
        assert_eq!(document["traffic"][0]["pps"].as_integer(), Some(70));
        let document = changed("traffic.traffic-2.pps=70").unwrap();
        assert_eq!(document["traffic"][1]["pps"].as_integer(), Some(70));
        let document = changed("traffic.assert.in_time=99%").unwrap();
        assert_eq!(document["traffic"][1]["assert"]["in_time"].as_str(), Some("99%"));
        let document = changed("recovery.mode=arq").unwrap();
        assert_eq!(document["recovery"]["mode"].as_str(), Some("arq"));
    }

    #[test]
    fn a_path_that_leads_nowhere_is_told_with_the_nearest_name() {
        for (text, error) in [
            ("link.loss", "write KEY=A,B,… such as link.loss=0,0.05,0.3 or run.duration=10s"),
            ("loss=1", "\"loss\" is no path to a key, such as link.loss or run.duration"),
            (
                "link..loss=1",
                "\"link..loss\" is no path to a key, such as link.loss or run.duration",
            ),
            ("link.loss=1,,2", "link.loss has an empty value; write link.loss=A,B,…"),
            ("traffic.medai.pps=1", "there is no [[traffic]] \"medai\"; did you mean \"media\"?"),
            ("link.a-b-2.loss=1", "there is no [[link]] \"a-b-2\"; did you mean \"a-b-1\"?"),
            ("event.at=1s", "the world file has no [[event]]"),
        ] {
            assert_eq!(changed(text), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn commas_in_quotes_and_brackets_separate_nothing() {
        let axis: Axis = "policy.p.deny_pops=[\"a\", \"b\"],[] , 'x,y'".parse().unwrap();
        assert_eq!(axis.values(), ["[\"a\", \"b\"]", "[]", "'x,y'"]);
        assert!(matches!(typed("[\"a\", \"b\"]"), Value::Array(pops) if pops.len() == 2));
        assert_eq!(typed("'x,y'"), Value::String("x,y".into()));
        assert_eq!(typed("true"), Value::Boolean(true));
        assert_eq!(typed("20ms"), Value::String("20ms".into()));
    }
}
