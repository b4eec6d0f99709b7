//! World files written from PoPs and links: what imports make.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use humantime::format_duration;

use super::source::Sources;
use super::{LinkId, Pop, World, WorldError};
use crate::link::{Chain, LinkSpec, Loss};

impl World {
    /// The text of a world file with the places of another file, whose name ends in `.{format}`, and
    /// the links between them: those of a topology (GraphML, GML) or of a table of round trips
    /// (CSV); for a table of places the rule that makes links of distances. One flow is in it, so
    /// that it runs.
    ///
    /// # Errors
    ///
    /// A file that can't be read or is none of these.
    pub fn import(path: &Path, format: &str) -> Result<String, WorldError> {
        let fault = |message| WorldError { file: "import".to_owned(), line: None, message };
        let name = path.display().to_string();
        if path.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case(format)) {
            return Err(fault(format!("{name} does not end in .{format}")));
        }
        let made_of_distances =
            format == "csv" && !Sources::beside("").read(&name)?.has_round_trips();
        let rule = match format {
            "csv" if made_of_distances => "distance = { factor = 1.6 }".to_owned(),
            "csv" => format!("matrix = {}", quoted(&name)),
            _ => format!("topology = {}", quoted(&name)),
        };
        let text = format!("pops = {{ from = {} }}\nlinks = {{ {rule} }}\n", quoted(&name));
        let world = Self::parse("import", &text).map_err(|error| fault(error.message))?;
        let links = match made_of_distances {
            true => format!(
                "\n# As light in fibre, over the great circle times 1.6.\n[links]\n{rule}\n"
            ),
            false => listed(&world.links),
        };
        Ok(world.file(&format!("# Made from {} by tradewind-sim import.", quoted(&name)), &links))
    }

    fn file(&self, about: &str, links: &str) -> String {
        let mut text = format!("{about}\n\n[run]\nname = \"imported\"\n");
        self.pops.iter().for_each(|pop| write_pop(&mut text, pop));
        text += links;
        if let Some((from, _)) = self.links.keys().next()
            && let Some(to) = self.farthest(from)
        {
            let _ = write!(
                text,
                "\n# So that there is something to see; put your own traffic here.\n[[traffic]]\n\
                 name = \"first\"\nfrom = \"{from}\"\nto = \"{to}\"\nrate = \"1Mbit\"\nsize = 1200\n"
            );
        }
        text
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn write_pop(text: &mut String, pop: &Pop) {
    let _ = writeln!(text, "\n[[pop]]\nid = \"{}\"", pop.id);
    let labels = [("region", &pop.region), ("country", &pop.country), ("provider", &pop.provider)];
    for (key, label) in labels {
        if let Some(label) = label {
            let _ = writeln!(text, "{key} = \"{}\"", label.as_str());
        }
    }
    if let Some([north, east]) = pop.location {
        let _ = writeln!(text, "location = [{north:?}, {east:?}]");
    }
    if let Some(people) = pop.population {
        let _ = writeln!(text, "population = {people}");
    }
}

/// The links as `[[link]]`, both directions in one where they are alike.
fn listed(links: &BTreeMap<LinkId, LinkSpec>) -> String {
    let mut text = String::new();
    for ((from, to), spec) in links {
        let back = links.get(&(to.clone(), from.clone()));
        let alike = back == Some(spec);
        if alike && from > to {
            continue;
        }
        let _ = match alike {
            true => writeln!(text, "\n[[link]]\nbetween = [\"{from}\", \"{to}\"]"),
            false => writeln!(text, "\n[[link]]\nfrom = \"{from}\"\nto = \"{to}\""),
        };
        write_spec(&mut text, spec);
    }
    text
}

/// What sources can say of a link: delay, jitter and loss.
fn write_spec(text: &mut String, spec: &LinkSpec) {
    for (key, span) in [("delay", spec.delay), ("jitter", spec.jitter)] {
        if span > Duration::ZERO {
            let _ = writeln!(text, "{key} = \"{}\"", format_duration(span));
        }
    }
    let _ = match spec.loss {
        Loss::None => Ok(()),
        Loss::Independent(share) => writeln!(text, "loss = {share:?}"),
        Loss::Chain(Chain { p, r, bad, good }) => {
            writeln!(text, "p = {p:?}\nr = {r:?}\nloss_bad = {bad:?}\nloss_good = {good:?}")
        }
        Loss::Outages { share, mean } => {
            writeln!(text, "loss = {share:?}\nburst = \"{}\"", format_duration(mean))
        }
    };
}
