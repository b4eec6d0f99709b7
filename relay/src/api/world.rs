//! A snapshot of the overlay as a world file, as `tradewind-sim run` reads it.

use std::fmt::Write;

use toml::Value;

use super::types::{Export, ExportedLink, ExportedPop};

impl Export {
    /// A world file (TOML) with these PoPs and links.
    pub fn to_world(&self) -> String {
        let mut out = format!("# The overlay as {} knew it at {}.\n\n[run]\n", self.node, self.at);
        key(&mut out, "name", format!("seen-from-{}", self.node));
        for pop in &self.pops {
            pop_table(&mut out, pop);
        }
        let known = |id: &str| self.pops.iter().any(|pop| pop.id == id);
        for link in &self.links {
            match known(&link.from) && known(&link.to) {
                true => link_table(&mut out, link),
                false => aside(&mut out, link, "leads to no member"),
            }
        }
        out
    }
}

fn key(out: &mut String, key: &str, value: impl Into<Value>) {
    // Writing to a string can't fail.
    let _ = writeln!(out, "{key} = {}", value.into());
}

fn pop_table(out: &mut String, pop: &ExportedPop) {
    out.push_str("\n[[pop]]\n");
    key(out, "id", pop.id.as_str());
    let labels = &pop.labels;
    for (name, label) in
        [("region", &labels.region), ("country", &labels.country), ("provider", &labels.provider)]
    {
        if let Some(label) = label {
            key(out, name, label.as_str());
        }
    }
    if let Some([north, east]) = pop.location {
        key(out, "location", vec![north, east]);
    }
}

/// What a world has no place for is named in a comment.
fn aside(out: &mut String, link: &ExportedLink, why: &str) {
    let _ = write!(out, "\n# {} > {} {why}.\n", link.from, link.to);
}

fn link_table(out: &mut String, link: &ExportedLink) {
    if !link.up {
        aside(out, link, "was down");
        return;
    }
    out.push_str("\n[[link]]\n");
    key(out, "from", link.from.as_str());
    key(out, "to", link.to.as_str());
    key(out, "delay", micros(link.delay_ms));
    key(out, "jitter", micros(link.jitter_ms));
    let loss = link.loss.clamp(0.0, 1.0);
    key(out, "loss", loss);
    // Runs so short can't make up so much loss: they are a matter of measurement.
    if loss > 0.0 && link.burst > 1.0 && link.burst * (1.0 - loss) >= loss {
        key(out, "burst", link.burst);
    }
    if let Some(capacity) = link.capacity_mbps {
        key(out, "rate", format!("{capacity}Mbit"));
    }
}

/// Common time is an estimate, so delays may come out a little below zero: a world's can't.
fn micros(ms: f64) -> String {
    format!("{}us", (ms * 1e3).round().max(0.0))
}

#[cfg(test)]
mod tests {
    use super::super::types::Labels;
    use super::*;

    #[test]
    fn a_snapshot_becomes_a_world() {
        let labels = Labels { region: Some("EU".into()), ..Labels::default() };
        let pop = |id: &str| ExportedPop {
            id: id.into(),
            labels: labels.clone(),
            location: Some([50.5, -8.0]),
            ..ExportedPop::default()
        };
        let link = ExportedLink {
            from: "fra".into(),
            to: "mad".into(),
            up: true,
            delay_ms: 12.3456,
            loss: 0.01,
            burst: 2.5,
            capacity_mbps: Some(100.0),
            ..ExportedLink::default()
        };
        let down = ExportedLink { up: false, ..link.clone() };
        let early = ExportedLink { delay_ms: -0.2, loss: 0.0, capacity_mbps: None, ..link.clone() };
        let astray = ExportedLink { to: "0a1b2c3d".into(), ..link.clone() };
        let dark = ExportedLink { loss: 0.9, burst: 2.0, ..link.clone() };
        let export = Export {
            node: "fra".into(),
            at: "2026-01-01T00:00:00Z".into(),
            pops: vec![pop("fra"), pop("mad")],
            links: vec![link, down, early, astray, dark],
        };
        let text = export.to_world();
        let world: toml::Table = text.parse().expect(&text);
        assert_eq!(world["pop"][1]["id"].as_str(), Some("mad"));
        assert_eq!(world["pop"][0]["location"][1].as_float(), Some(-8.0));
        assert_eq!(world["link"][0]["delay"].as_str(), Some("12346us"));
        assert_eq!(world["link"][0]["burst"].as_float(), Some(2.5));
        assert_eq!(world["link"][0]["rate"].as_str(), Some("100Mbit"));
        assert_eq!(world["link"][1]["delay"].as_str(), Some("0us"));
        assert_eq!(world["link"].as_array().map(Vec::len), Some(3));
        assert!(world["link"][2].get("burst").is_none());
        assert!(text.contains("# fra > mad was down."));
        assert!(text.contains("# fra > 0a1b2c3d leads to no member."));
    }
}
