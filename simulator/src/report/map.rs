//! The world map: PoPs, the paths in use, and how good their links were. Worlds without places are
//! laid out on a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use tradewind_proto::units::PopId;

use super::html::escaped;
use super::labels;
use crate::outcome::Outcome;
use crate::world::{Pop, World};

/// The coast, in tenths of a degree; what lies across the edge goes on beyond it. See data/NOTICE.
const LAND: &str = include_str!("../../data/land.path");
/// With more, links that carry no flow are left out.
const MOST_IDLE_LINKS: usize = 300;
/// With more, PoPs and their names are drawn smaller.
const MOST_LARGE: usize = 40;
/// Pieces of a great circle, for each radian.
const PIECES: f64 = 16.0;
/// Around the Earth, in tenths of a degree.
const FULL_CIRCLE: f64 = 3600.0;

/// Both directions of a link between two PoPs, by name.
type Pair<'a> = (&'a PopId, &'a PopId);

/// What a pair carried and how well.
#[derive(Default)]
struct Use {
    /// Payload bytes of flows.
    payload: f64,
    packets: u64,
    dropped: u64,
}

impl Use {
    /// Share of its packets that it dropped.
    fn loss(&self) -> f64 {
        self.dropped as f64 / self.packets.max(1) as f64
    }
}

/// Where things are drawn.
struct Layout<'a> {
    at: BTreeMap<&'a PopId, [f64; 2]>,
    /// On a map: great circles instead of straight lines.
    on_earth: bool,
    /// How far east the left edge of the map is, tenths of a degree.
    west: f64,
    /// Left, top, width, height.
    frame: [f64; 4],
}

/// The map as SVG.
pub(super) fn svg(world: &World, outcome: &Outcome) -> String {
    let layout = Layout::new(world);
    let uses = uses(outcome);
    let [left, top, width, height] = layout.frame;
    let mut svg = format!(
        "<svg class=\"map\" role=\"img\" aria-label=\"Map of PoPs and paths in use\" \
         viewBox=\"{left:.0} {top:.0} {width:.0} {height:.0}\" xmlns=\"http://www.w3.org/2000/svg\">"
    );
    if layout.on_earth {
        let (here, land) = (-layout.west, LAND.trim_end());
        let _ = write!(
            svg,
            "<g class=\"land\" transform=\"translate({here:.1})\"><path id=\"land\" d=\"{land}\"/>\
             <use href=\"#land\" x=\"-{FULL_CIRCLE}\"/><use href=\"#land\" x=\"{FULL_CIRCLE}\"/></g>"
        );
    }
    let pairs: BTreeSet<Pair<'_>> = world.links.keys().map(|(a, b)| ordered(a, b)).collect();
    if pairs.len() <= MOST_IDLE_LINKS {
        for pair in pairs.iter().filter(|pair| uses.get(pair).is_none_or(|u| u.payload == 0.0)) {
            let _ = write!(svg, "<path class=\"link\" d=\"{}\"/>", layout.line(*pair));
        }
    }
    paths(&mut svg, &layout, &uses);
    pops(&mut svg, &layout, &uses, world, outcome);
    svg + "</svg>"
}

/// The links that flows used, the worst on top.
fn paths(svg: &mut String, layout: &Layout<'_>, uses: &BTreeMap<Pair<'_>, Use>) {
    let most = uses.values().map(|link| link.payload).fold(1.0, f64::max);
    let mut used: Vec<_> = uses.iter().filter(|(_, link)| link.payload > 0.0).collect();
    used.sort_by_key(|(_, link)| quality(link.loss()));
    for (pair, link) in used {
        let thick = 1.2 + 5.8 * (link.payload / most).sqrt();
        let (a, b) = pair;
        let _ = write!(
            svg,
            "<path class=\"path q{}\" data-link=\"{a} {b}\" stroke-width=\"{thick:.1}\" d=\"{}\">\
             <title>{a} - {b}: {:.2} % of packets lost, {:.1} MB of payload</title></path>",
            quality(link.loss()),
            layout.line(*pair),
            link.loss() * 100.0,
            link.payload / 1e6,
        );
    }
}

/// The PoPs; names of those that carry most come first where there is no room for all.
fn pops(
    svg: &mut String,
    layout: &Layout<'_>,
    uses: &BTreeMap<Pair<'_>, Use>,
    world: &World,
    outcome: &Outcome,
) {
    let unit = layout.frame[2] / 1000.0;
    let large = world.pops.len() <= MOST_LARGE;
    let [radius, size] = if large { [6.0, 16.0] } else { [3.5, 12.0] }.map(|pixels| pixels * unit);
    let mut carried: BTreeMap<&PopId, f64> = BTreeMap::new();
    for ((a, b), link) in uses {
        *carried.entry(a).or_default() += link.payload;
        *carried.entry(b).or_default() += link.payload;
    }
    let carried = |pop: &Pop| carried.get(&pop.id).copied().unwrap_or_default();
    let mut drawn: Vec<(&Pop, [f64; 2])> =
        world.pops.iter().filter_map(|pop| Some((pop, *layout.at.get(&pop.id)?))).collect();
    drawn.sort_by(|(a, _), (b, _)| carried(b).total_cmp(&carried(a)));
    let names: Vec<_> = drawn.iter().map(|(pop, at)| (*at, pop.id.as_str())).collect();
    let labels = labels::place(&names, layout.frame, (size, radius));
    let flows = outcome.flows.iter();
    let ends: BTreeSet<&PopId> =
        flows.flat_map(|flow| [&flow.traffic.from, &flow.traffic.to]).collect();
    // The last drawn is on top.
    for ((pop, [x, y]), label) in drawn.iter().zip(&labels).rev() {
        let end = if ends.contains(&pop.id) { " end" } else { "" };
        let shown = if label.free { "" } else { " class=\"hid\"" };
        let anchor = if label.ends { " text-anchor=\"end\"" } else { "" };
        let words = [&pop.country, &pop.region].map(|label| label.as_ref().map(|l| l.as_str()));
        let words = words.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let (id, words, halo) = (&pop.id, escaped(&words), 3.0 * unit);
        let [tx, ty] = label.at;
        let _ = write!(
            svg,
            "<g class=\"pop{end}\" data-pop=\"{id}\"><title>{id} {words}</title>\
             <circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.2}\"/>\
             <text{shown}{anchor} x=\"{tx:.1}\" y=\"{ty:.1}\" font-size=\"{size:.2}\" \
             stroke-width=\"{halo:.2}\">{id}</text></g>",
        );
    }
}

/// 0 to 3, the last the worst.
fn quality(loss: f64) -> usize {
    [0.01, 0.05, 0.15].iter().filter(|limit| loss >= **limit).count()
}

fn ordered<'a>(a: &'a PopId, b: &'a PopId) -> Pair<'a> {
    if a <= b { (a, b) } else { (b, a) }
}

/// What links carried; payload goes by how long flows had which route.
fn uses(outcome: &Outcome) -> BTreeMap<Pair<'_>, Use> {
    let mut uses: BTreeMap<Pair<'_>, Use> = BTreeMap::new();
    for flow in &outcome.flows {
        let stop = flow.traffic.stop.min(outcome.lasted);
        let whole = stop.saturating_sub(flow.traffic.start).as_secs_f64().max(1e-9);
        let ends = flow.routes.iter().skip(1).map(|route| route.at).chain([Duration::MAX]);
        for (route, until) in flow.routes.iter().zip(ends) {
            let lasts = until.min(stop).saturating_sub(route.at.max(flow.traffic.start));
            let payload = flow.overlay.sent_bytes as f64 * lasts.as_secs_f64() / whole;
            for hop in route.path.iter().flat_map(|path| path.windows(2)) {
                uses.entry(ordered(&hop[0], &hop[1])).or_default().payload += payload;
            }
        }
    }
    for link in &outcome.links {
        let pair = uses.entry(ordered(&link.link.0, &link.link.1)).or_default();
        pair.packets += link.counters.offered;
        pair.dropped += link.counters.dropped();
    }
    uses
}

impl<'a> Layout<'a> {
    fn new(world: &'a World) -> Self {
        let placed = world.pops.iter().filter_map(|pop| Some((&pop.id, pop.location?)));
        let placed: BTreeMap<&PopId, [f64; 2]> = placed.collect();
        match placed.len() == world.pops.len() {
            true => Self::on_earth(placed),
            false => Self::on_circle(world),
        }
    }

    fn on_circle(world: &'a World) -> Self {
        let count = world.pops.len() as f64;
        let at = world.pops.iter().enumerate().map(|(nth, pop)| {
            let angle = std::f64::consts::TAU * nth as f64 / count;
            (&pop.id, [500.0 + 400.0 * angle.sin(), 240.0 - 190.0 * angle.cos()])
        });
        let frame = [0.0, 0.0, 1000.0, 480.0];
        Self { at: at.collect(), on_earth: false, west: 0.0, frame }
    }

    /// The part of the world that has PoPs, with some room around, at least as wide as twice its
    /// height. The edge is where there is the widest gap between PoPs.
    fn on_earth(placed: BTreeMap<&'a PopId, [f64; 2]>) -> Self {
        let west = widest_gap(placed.values().map(|&place| project(place)[0]).collect());
        let shifted = |place| {
            let [x, y] = project(place);
            [(x - west).rem_euclid(FULL_CIRCLE), y]
        };
        let at: BTreeMap<&PopId, [f64; 2]> =
            placed.into_iter().map(|(id, place)| (id, shifted(place))).collect();
        let range = |axis: usize| {
            let values = at.values().map(|point| point[axis]);
            let (least, most) =
                values.fold((f64::MAX, f64::MIN), |(a, b), value| (a.min(value), b.max(value)));
            (least, most - least)
        };
        let [(left, width), (top, height)] = [range(0), range(1)];
        let high = (height * 1.35).max(width * 1.25 / 2.0).clamp(120.0, 1500.0);
        let wide = (high * 2.1).max(width * 1.15).min(FULL_CIRCLE);
        let high = high.max(wide / 2.6);
        let left = (left + width / 2.0 - wide / 2.0).clamp(0.0, FULL_CIRCLE - wide);
        let top = (top + height / 2.0 - high / 2.0).clamp(0.0, 1800.0 - high);
        Self { at, on_earth: true, west, frame: [left, top, wide, high] }
    }

    /// The way between two PoPs as path data.
    fn line(&self, (a, b): Pair<'_>) -> String {
        let (Some(&from), Some(&to)) = (self.at.get(a), self.at.get(b)) else {
            return String::new();
        };
        let points = if self.on_earth { great_circle(from, to) } else { vec![from, to] };
        let mut data = String::new();
        let mut before = None;
        for [x, y] in points {
            // Across the edge of the map the line goes on at the other side.
            let jumps = before.is_none_or(|before: f64| (x - before).abs() > FULL_CIRCLE / 2.0);
            let _ = write!(data, "{}{x:.1} {y:.1}", if jumps { "M" } else { "L" });
            before = Some(x);
        }
        data
    }
}

/// The middle of the widest gap between meridians.
fn widest_gap(mut meridians: Vec<f64>) -> f64 {
    meridians.sort_by(f64::total_cmp);
    let Some(&first) = meridians.first() else { return 0.0 };
    let next = meridians.iter().skip(1).copied().chain([first + FULL_CIRCLE]);
    let gaps = meridians.iter().zip(next).map(|(&from, to)| (to - from, from));
    let (wide, from) = gaps.fold((0.0, 0.0), |best, gap| if gap.0 > best.0 { gap } else { best });
    (from + wide / 2.0).rem_euclid(FULL_CIRCLE)
}

/// Degrees north and east to tenths of a degree from the upper left corner.
fn project([north, east]: [f64; 2]) -> [f64; 2] {
    [(east + 180.0) * 10.0, (90.0 - north) * 10.0]
}

/// Points on the shortest way, by linear combination of the ends' directions.
fn great_circle(from: [f64; 2], to: [f64; 2]) -> Vec<[f64; 2]> {
    let direction = |[x, y]: [f64; 2]| {
        let (east, north) = ((x / 10.0 - 180.0).to_radians(), (90.0 - y / 10.0).to_radians());
        [north.cos() * east.cos(), north.cos() * east.sin(), north.sin()]
    };
    let (a, b) = (direction(from), direction(to));
    let angle = a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>().clamp(-1.0, 1.0).acos();
    if !(0.05..=3.1).contains(&angle) {
        return vec![from, to];
    }
    let pieces = (angle * PIECES).ceil() as usize;
    let point = |nth: usize| {
        let share = nth as f64 / pieces as f64;
        let [p, q] = [1.0 - share, share].map(|part| (part * angle).sin() / angle.sin());
        let [x, y, z]: [f64; 3] = std::array::from_fn(|axis| p * a[axis] + q * b[axis]);
        project([z.clamp(-1.0, 1.0).asin().to_degrees(), y.atan2(x).to_degrees()])
    };
    (0..=pieces).map(point).collect()
}
