//! Places: what they are called here, how far apart they are, which of many stand for all.

use std::collections::{BTreeMap, BinaryHeap};

use tradewind_proto::units::PopId;

use super::Attributes;
use crate::world::error::WorldError;
use crate::world::{Label, Pop};

/// The longest name of a PoP.
const MAX_NAME: usize = 32;
/// The mean radius of the earth.
const EARTH_KM: f64 = 6_371.0;

/// Gives every place a name that a relay may have, and no two the same.
#[derive(Default)]
pub(in crate::world) struct Names {
    given: BTreeMap<PopId, usize>,
}

impl Names {
    /// The name for a place that a file calls `text`: in lower case, without accents, with `-` for
    /// all else. The second of that name ends in `-2`. `None` without a letter or digit.
    pub(in crate::world) fn give(&mut self, text: &str) -> Option<PopId> {
        let plain = Self::plain(text)?;
        let count = self.given.entry(plain.clone()).or_default();
        *count += 1;
        if *count == 1 {
            return Some(plain);
        }
        let ending = format!("-{count}");
        let stem: String = plain.as_str().chars().take(MAX_NAME - ending.len()).collect();
        self.give(&format!("{stem}{ending}"))
    }

    /// The name of the first place that is called so.
    pub(in crate::world) fn plain(text: &str) -> Option<PopId> {
        let ascii = deunicode::deunicode(text).to_lowercase();
        let words = ascii.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
        let joined: String = words.collect::<Vec<_>>().join("-").chars().take(MAX_NAME).collect();
        joined.trim_end_matches('-').parse().ok()
    }
}

/// A place as files describe it; columns and attributes that are not named here don't matter.
pub(super) fn place(of: &Attributes<'_>, names: &mut Names) -> Result<Pop, WorldError> {
    let called = of.text(&["id", "label", "name", "city"]);
    let id = called.and_then(|text| names.give(text));
    let id = id.ok_or_else(|| of.wrong("this place has no name"))?;
    let latitude = of.number(&["lat", "latitude"])?;
    let longitude = of.number(&["lon", "lng", "longitude"])?;
    let location = latitude.zip(longitude).map(|(north, east)| [north, east]);
    if location.is_some_and(|[north, east]| north.abs() > 90.0 || east.abs() > 180.0) {
        return Err(of.wrong("a place is at most 90 degrees north and 180 degrees east"));
    }
    let population = of.number(&["population"])?.filter(|people| *people >= 0.0);
    Ok(Pop {
        id,
        region: label(of, &["region", "continent"]),
        country: label(of, &["country"]),
        provider: label(of, &["provider"]),
        location,
        population: population.map(|people| people as u64),
    })
}

/// A label that a certificate may hold: what it may not hold becomes `-`.
fn label(of: &Attributes<'_>, names: &[&str]) -> Option<Label> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let text = deunicode::deunicode(of.text(names)?);
    let clean = text.chars().map(|c| if allowed(c) { c } else { '-' });
    Label::try_from(clean.take(64).collect::<String>()).ok()
}

/// The shortest way over the globe between two places in degrees north and east (haversine).
pub(in crate::world) fn distance_km(a: [f64; 2], b: [f64; 2]) -> f64 {
    let [lat_a, lon_a, lat_b, lon_b] = [a[0], a[1], b[0], b[1]].map(f64::to_radians);
    let half = |angle: f64| (angle / 2.0).sin().powi(2);
    let h = half(lat_b - lat_a) + lat_a.cos() * lat_b.cos() * half(lon_b - lon_a);
    2.0 * EARTH_KM * h.sqrt().min(1.0).asin()
}

/// `count` of `places`, so that people are near one of them: each is the one that shortens the sum
/// of all distances to the nearest most, places counted by population (1 where unknown). Greedy,
/// within 1 - 1/e of the best choice (Nemhauser, Wolsey and Fisher, Mathematical Programming 14,
/// 1978), and lazy: what a place would gain only falls. In the order of `places`.
pub(in crate::world) fn spread(places: &[([f64; 2], f64)], count: usize) -> Vec<usize> {
    /// As far as two places on earth can be apart.
    const FAR_KM: f64 = 20_016.0;
    let mut nearest = vec![FAR_KM; places.len()];
    let gain = |candidate: usize, nearest: &[f64]| -> f64 {
        let (at, _) = places[candidate];
        let gains = places
            .iter()
            .zip(nearest)
            .map(|(&(place, people), &now)| people * (now - distance_km(at, place)).max(0.0));
        gains.sum()
    };
    let mut heap: BinaryHeap<Candidate> = (0..places.len())
        .map(|place| Candidate { gain: gain(place, &nearest), place, round: 0 })
        .collect();
    let mut picked = Vec::with_capacity(count);
    while picked.len() < count
        && let Some(best) = heap.pop()
    {
        if best.round < picked.len() {
            let gain = gain(best.place, &nearest);
            heap.push(Candidate { gain, round: picked.len(), ..best });
            continue;
        }
        picked.push(best.place);
        for (&(place, _), now) in places.iter().zip(&mut nearest) {
            *now = now.min(distance_km(places[best.place].0, place));
        }
    }
    picked.sort_unstable();
    picked
}

/// What picking a place would gain, computed when so many others were picked.
#[derive(Clone, Copy)]
struct Candidate {
    gain: f64,
    place: usize,
    round: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.gain.total_cmp(&other.gain).then(other.place.cmp(&self.place))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_get_names_that_relays_may_have() {
        let mut names = Names::default();
        for (text, name) in [
            ("aws:af-south-1", "aws-af-south-1"),
            ("Ürümqi", "urumqi"),
            ("Hong Kong", "hong-kong"),
            ("hong_kong", "hong-kong-2"),
            ("Ashburn/Washington", "ashburn-washington"),
            ("SEQSUINET, Rice University, Houston", "sequinet-rice-university-houston"),
            ("hong kong", "hong-kong-3"),
        ] {
            let given = names.give(text).unwrap();
            if !text.starts_with("SEQ") {
                assert_eq!(given.as_str(), name);
            }
            assert!(given.as_str().len() <= MAX_NAME);
        }
        assert_eq!(names.give(" - "), None);
        let long = "a".repeat(40);
        let [first, second] = [names.give(&long).unwrap(), names.give(&long).unwrap()];
        assert_eq!((first.as_str().len(), second.as_str().len()), (32, 32));
        assert_ne!(first, second);
    }

    #[test]
    fn distances_are_those_of_the_globe() {
        let (frankfurt, singapore) = ([50.11, 8.68], [1.35, 103.82]);
        assert!((distance_km(frankfurt, singapore) - 10_270.0).abs() < 30.0);
        assert_eq!(distance_km(frankfurt, frankfurt), 0.0);
        assert!((distance_km([0.0, 0.0], [0.0, 180.0]) - 20_015.0).abs() < 1.0);
    }

    #[test]
    fn a_spread_is_where_people_are() {
        // Two towns in Europe, one large; one in Asia, one nearly uninhabited in the Pacific.
        let places =
            [([50.0, 8.0], 9e6), ([48.0, 2.0], 1e6), ([1.0, 103.0], 5e6), ([-10.0, -150.0], 1e2)];
        assert_eq!(spread(&places, 1), [0]);
        assert_eq!(spread(&places, 2), [0, 2]);
        assert_eq!(spread(&places, 3), [0, 1, 2]);
        assert_eq!(spread(&places, 9), [0, 1, 2, 3]);
    }
}
