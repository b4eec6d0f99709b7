//! Where the names of places go on a map, so that none covers another.

/// Text is about so much wider than high, a character.
const WIDTH: f64 = 0.6;

/// A name beside its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Label {
    /// Where the text's base line begins, or ends.
    pub(super) at: [f64; 2],
    /// The text ends there.
    pub(super) ends: bool,
    /// There was room for it.
    pub(super) free: bool,
}

/// Left, top, right, bottom.
type Box = [f64; 4];

/// Finds room in `frame` (left, top, width, height) for the names of places with a dot of that
/// radius, the first before the others.
pub(super) fn place(
    names: &[([f64; 2], &str)],
    frame: [f64; 4],
    (size, radius): (f64, f64),
) -> Vec<Label> {
    let [left, top, width, height] = frame;
    let frame = [left, top, left + width, top + height];
    let dot = |&([x, y], _): &([f64; 2], &str)| [x - radius, y - radius, x + radius, y + radius];
    let mut taken: Vec<Box> = names.iter().map(dot).collect();
    let mut labels = Vec::with_capacity(names.len());
    for (nth, &([x, y], name)) in names.iter().enumerate() {
        let wide = WIDTH * size * name.chars().count() as f64;
        let (near, low) = (radius * 1.3, size * 0.35);
        // Beside it, above and below to both sides, straight above and below.
        let tries = [
            ([x + near, y + low], false),
            ([x - near, y + low], true),
            ([x + radius, y - radius], false),
            ([x + radius, y + radius + size * 0.8], false),
            ([x - radius, y - radius], true),
            ([x - radius, y + radius + size * 0.8], true),
            ([x - wide / 2.0, y - radius * 1.5], false),
            ([x - wide / 2.0, y + radius * 1.5 + size * 0.8], false),
        ];
        let area = |([x, y], ends): ([f64; 2], bool)| {
            let left = if ends { x - wide } else { x };
            [left, y - size * 0.85, left + wide, y + size * 0.25]
        };
        let fits = |spot: &([f64; 2], bool)| {
            let area = area(*spot);
            let others = taken.iter().enumerate().filter(|(other, _)| *other != nth);
            inside(area, frame) && !others.into_iter().any(|(_, other)| overlap(area, *other))
        };
        let room = tries.iter().find(|spot| fits(spot));
        taken.extend(room.map(|spot| area(*spot)));
        let (at, ends) = *room.unwrap_or(&tries[usize::from(x > left + width / 2.0)]);
        labels.push(Label { at, ends, free: room.is_some() });
    }
    labels
}

fn inside(a: Box, b: Box) -> bool {
    a[0] >= b[0] && a[1] >= b[1] && a[2] <= b[2] && a[3] <= b[3]
}

fn overlap(a: Box, b: Box) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cover_neither_each_other_nor_dots_nor_the_edge() {
        let places: Vec<[f64; 2]> = (0..200)
            .map(|nth| [f64::from(nth * 7919 % 1000), f64::from(nth * 104_729 % 480)])
            .collect();
        let names: Vec<([f64; 2], &str)> = places.iter().map(|&at| (at, "somewhere")).collect();
        let frame = [0.0, 0.0, 1000.0, 480.0];
        let (size, radius) = (12.0, 3.0);
        let labels = place(&names, frame, (size, radius));
        let wide = WIDTH * size * 9.0;
        let areas: Vec<Box> = labels
            .iter()
            .filter(|label| label.free)
            .map(|label| {
                let left = if label.ends { label.at[0] - wide } else { label.at[0] };
                [left, label.at[1] - size * 0.85, left + wide, label.at[1] + size * 0.25]
            })
            .collect();
        assert!((40..200).contains(&areas.len()), "{}", areas.len());
        for (nth, area) in areas.iter().enumerate() {
            assert!(inside(*area, [0.0, 0.0, 1000.0, 480.0]), "{area:?}");
            assert!(areas[..nth].iter().all(|other| !overlap(*area, *other)), "{area:?}");
            let own = 1; // a name may touch the dot that it belongs to
            let covered = places.iter().filter(|[x, y]| overlap(*area, [*x, *y, *x, *y]));
            assert!(covered.count() <= own, "{area:?}");
        }
    }

    #[test]
    fn where_only_one_name_fits_it_is_the_first() {
        let (left, right) = (([10.0, 12.0], "somewhere"), ([90.0, 12.0], "elsewhere"));
        for names in [[left, right], [right, left]] {
            let labels = place(&names, [0.0, 0.0, 100.0, 24.0], (12.0, 3.0));
            assert!(labels[0].free && !labels[1].free, "{labels:?}");
        }
    }
}
