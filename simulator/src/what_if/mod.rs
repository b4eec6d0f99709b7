//! Changes to a world in a few words, and what they make of its traffic: before and after.
//!
//! The grammar, in which a place is a PoP or `region`, `country` or `provider` and its name, and a
//! bare name may be any of these:
//!
//! | words | what changes |
//! |---|---|
//! | `remove PLACE` | the relay was never there; nor were its links and the traffic that begins or ends there |
//! | `kill PLACE [at TIME]` | its relays die without a word, halfway through the run or at that time |
//! | `cut A B [at TIME]` | the link between two PoPs goes dark, both ways, halfway or at that time |
//! | `add link A B DELAY [LOSS]` | a link more, both ways |
//! | `delay A B SPAN`, `loss A B SHARE`, `rate A B RATE` | the link between two PoPs is like that, both ways |
//! | `demand xN [of TRAFFIC]` | the rate of all traffic, or of that flow or group, times N |
//! | `deny PLACE` | traffic may not visit it; what begins or ends there stays as it is |
//! | `policy NAME` | that `[[policy]]` of the world binds all traffic |

mod apply;
mod compare;

use std::str::FromStr;
use std::time::Duration;

pub(crate) use apply::reach;
pub use compare::{Case, Comparison, compare};

use crate::link::Loss;
use crate::world::{BitRate, Share, Span, nearest, read};

/// One change, as `remove sgp`.
#[derive(Clone, Debug, PartialEq)]
pub struct WhatIf {
    text: String,
    change: Change,
}

/// Two PoPs.
type Ends = [String; 2];

#[derive(Clone, Debug, PartialEq)]
enum Change {
    Remove(Place),
    Kill(Place, Option<Duration>),
    Cut(Ends, Option<Duration>),
    Add(Ends, Duration, Loss),
    Delay(Ends, Duration),
    Loss(Ends, Loss),
    Rate(Ends, u64),
    Demand(f64, Option<String>),
    Deny(Place),
    Policy(String),
}

/// One PoP or several with a label.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    kind: Option<Kind>,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pop,
    Region,
    Country,
    Provider,
}

/// Every verb and how a change with it is written.
const GRAMMAR: [(&str, &str); 10] = [
    ("remove", "remove PLACE"),
    ("kill", "kill PLACE [at TIME]"),
    ("cut", "cut A B [at TIME]"),
    ("add", "add link A B DELAY [LOSS]"),
    ("delay", "delay A B SPAN"),
    ("loss", "loss A B SHARE"),
    ("rate", "rate A B RATE"),
    ("demand", "demand xN [of TRAFFIC]"),
    ("deny", "deny PLACE"),
    ("policy", "policy NAME"),
];

impl WhatIf {
    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl FromStr for WhatIf {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (words, at) = match &words[..] {
            [before @ .., "at", time] => (before, Some(span(time)?)),
            all => (all, None),
        };
        let change = change(words, at)?.ok_or_else(|| usage(words))?;
        Ok(Self { text: text.trim().to_owned(), change })
    }
}

/// `None`: not in the grammar.
fn change(words: &[&str], at: Option<Duration>) -> Result<Option<Change>, String> {
    let ends = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
    let timed = match words {
        ["kill", place @ ..] => self::place(place).map(|place| Change::Kill(place, at)),
        &["cut", a, b] => Some(Change::Cut(ends(a, b), at)),
        _ => None,
    };
    if timed.is_some() || at.is_some() {
        return Ok(timed);
    }
    Ok(match *words {
        ["remove", ref place @ ..] => self::place(place).map(Change::Remove),
        ["deny", ref place @ ..] => self::place(place).map(Change::Deny),
        ["add", "link", a, b, delay] => Some(Change::Add(ends(a, b), span(delay)?, Loss::None)),
        ["add", "link", a, b, delay, lost] => {
            Some(Change::Add(ends(a, b), span(delay)?, loss(lost)?))
        }
        ["delay", a, b, delay] => Some(Change::Delay(ends(a, b), span(delay)?)),
        ["loss", a, b, lost] => Some(Change::Loss(ends(a, b), loss(lost)?)),
        ["rate", a, b, rate] => {
            let BitRate(rate) = quantity(rate, "a rate, such as 2.5Mbit")?;
            Some(Change::Rate(ends(a, b), rate))
        }
        ["demand", times] => Some(Change::Demand(factor(times)?, None)),
        ["demand", times, "of", name] => Some(Change::Demand(factor(times)?, Some(name.into()))),
        ["policy", name] => Some(Change::Policy(name.into())),
        _ => None,
    })
}

fn place(words: &[&str]) -> Option<Place> {
    let place = |kind, name: &str| Some(Place { kind, name: name.to_owned() });
    match *words {
        [name] => place(None, name),
        ["pop", name] => place(Some(Kind::Pop), name),
        ["region", name] => place(Some(Kind::Region), name),
        ["country", name] => place(Some(Kind::Country), name),
        ["provider", name] => place(Some(Kind::Provider), name),
        _ => None,
    }
}

/// How the change that was probably meant is written.
fn usage(words: &[&str]) -> String {
    let verb = words.first().copied().unwrap_or_default();
    let known = GRAMMAR.map(|(verb, _)| verb);
    let meant = nearest(verb, known.into_iter());
    let found = GRAMMAR.iter().find(|(known, _)| Some(*known) == meant);
    match found {
        Some((_, usage)) => format!("write \"{usage}\", not \"{}\"", words.join(" ")),
        None => format!("unknown change \"{verb}\"; known: {}", known.join(", ")),
    }
}

fn quantity<T: serde::de::DeserializeOwned>(text: &str, what: &str) -> Result<T, String> {
    read(text).ok_or_else(|| format!("\"{text}\" is not {what}"))
}

fn span(text: &str) -> Result<Duration, String> {
    quantity(text, "a span of time, such as 40ms").map(|Span(span)| span)
}

fn loss(text: &str) -> Result<Loss, String> {
    let Share(share) = quantity(text, "a share, such as 5% or 0.05")?;
    match share == 0.0 {
        true => Ok(Loss::None),
        false => Loss::independent(share).map_err(|error| error.to_string()),
    }
}

fn factor(text: &str) -> Result<f64, String> {
    let number = text.strip_prefix('x').unwrap_or(text).parse::<f64>().ok();
    number
        .filter(|factor| (0.001..=1_000.0).contains(factor))
        .ok_or_else(|| format!("\"{text}\" is not a factor from x0.001 to x1000, such as x2"))
}

#[cfg(test)]
mod tests;
