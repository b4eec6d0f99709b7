//! The path that is written into every packet.

use std::fmt;

use crate::units::PopKey;

/// The most PoPs on a path when it enters the overlay.
pub const MAX_PATH: usize = 6;
/// The most PoPs on a path after detours inserted hops.
pub const MAX_DETOURED_PATH: usize = MAX_PATH + 2;

/// The PoPs that a packet visits, ingress first, and the one where it is now.
///
/// A value is loop-free, has 1 (a ping of oneself) to [`MAX_DETOURED_PATH`] PoPs, and its cursor
/// lies on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Path {
    /// Zero from `len` on, so that derived comparisons see the path only.
    pops: [PopKey; MAX_DETOURED_PATH],
    len: u8,
    cursor: u8,
}

/// Why a list of PoPs is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No PoP, or more than fit.
    #[error("a path has 1 to {MAX_DETOURED_PATH} PoPs, not {0}")]
    Length(usize),
    /// A PoP stands on it twice.
    #[error("the path visits {0} twice")]
    Loop(PopKey),
    /// The cursor lies beyond the end.
    #[error("the cursor {cursor} lies beyond the {len} PoPs of the path")]
    Cursor {
        /// The cursor given.
        cursor: usize,
        /// The number of PoPs.
        len: usize,
    },
}

impl Path {
    /// A path that stands at its first PoP.
    pub fn new(pops: &[PopKey]) -> Result<Self, PathError> {
        Self::at(pops, 0)
    }

    /// A path that stands at `pops[cursor]`.
    pub fn at(pops: &[PopKey], cursor: usize) -> Result<Self, PathError> {
        let len = pops.len();
        let mut stored = [PopKey::default(); MAX_DETOURED_PATH];
        let room = stored.get_mut(..len).filter(|room| !room.is_empty());
        room.ok_or(PathError::Length(len))?.copy_from_slice(pops);
        if cursor >= len {
            return Err(PathError::Cursor { cursor, len });
        }
        if let Some(twice) = first_repeated(pops) {
            return Err(PathError::Loop(twice));
        }
        Ok(Self { pops: stored, len: len as u8, cursor: cursor as u8 })
    }

    /// All PoPs, ingress first.
    pub fn pops(&self) -> &[PopKey] {
        &self.pops[..usize::from(self.len)]
    }

    /// Links between them.
    pub fn links(&self) -> usize {
        usize::from(self.len) - 1
    }

    /// Which of [`Self::pops`] the packet is at.
    pub fn cursor(&self) -> usize {
        usize::from(self.cursor)
    }

    /// Where the packet is.
    pub fn here(&self) -> PopKey {
        self.pops[self.cursor()]
    }

    /// Where it goes next; `None` at the end.
    pub fn next(&self) -> Option<PopKey> {
        self.ahead().first().copied()
    }

    /// What lies ahead of the current PoP, the next one first.
    pub fn ahead(&self) -> &[PopKey] {
        &self.pops()[self.cursor() + 1..]
    }

    /// The PoP where the path begins.
    pub fn first(&self) -> PopKey {
        self.pops[0]
    }

    /// The PoP where the path ends.
    pub fn last(&self) -> PopKey {
        self.pops[usize::from(self.len) - 1]
    }

    /// The same path one PoP further on; `None` at the end.
    pub fn advanced(&self) -> Option<Self> {
        let cursor = self.cursor + 1;
        (cursor < self.len).then_some(Self { cursor, ..*self })
    }

    /// The path with what lies ahead replaced by `ahead`: a detour from here.
    pub fn rerouted(&self, ahead: &[PopKey]) -> Result<Self, PathError> {
        let visited = &self.pops[..=self.cursor()];
        let len = visited.len() + ahead.len();
        let mut pops = [PopKey::default(); MAX_DETOURED_PATH];
        let joined = pops.get_mut(..len).ok_or(PathError::Length(len))?;
        let (behind, beyond) = joined.split_at_mut(visited.len());
        behind.copy_from_slice(visited);
        beyond.copy_from_slice(ahead);
        Self::at(joined, self.cursor())
    }

    /// The way back over the PoPs visited so far, from here to the first.
    pub fn reversed(&self) -> Self {
        let mut pops = [PopKey::default(); MAX_DETOURED_PATH];
        let visited = self.pops[..=self.cursor()].iter().rev();
        pops.iter_mut().zip(visited).for_each(|(back, &pop)| *back = pop);
        Self { pops, len: self.cursor + 1, cursor: 0 }
    }
}

fn first_repeated(pops: &[PopKey]) -> Option<PopKey> {
    let repeated = |&(at, pop): &(usize, &PopKey)| pops[..at].contains(pop);
    pops.iter().enumerate().find(repeated).map(|(_, &pop)| pop)
}

/// Such as `#aaaaaaaa > [#bbbbbbbb] > #cccccccc`: the packet is at the PoP in brackets.
impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, pop) in self.pops().iter().enumerate() {
            let arrow = if at == 0 { "" } else { " > " };
            match at == self.cursor() {
                true => write!(f, "{arrow}[{pop}]")?,
                false => write!(f, "{arrow}{pop}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(numbers: &[u32]) -> Vec<PopKey> {
        numbers.iter().copied().map(PopKey).collect()
    }

    fn path(numbers: &[u32], cursor: usize) -> Path {
        Path::at(&keys(numbers), cursor).unwrap()
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for (name, pops, cursor, error) in [
            ("empty", &[][..], 0, PathError::Length(0)),
            ("long", &[1, 2, 3, 4, 5, 6, 7, 8, 9], 0, PathError::Length(9)),
            ("loop", &[1, 2, 3, 2], 0, PathError::Loop(PopKey(2))),
            ("zero twice", &[0, 0], 0, PathError::Loop(PopKey(0))),
            ("cursor", &[1, 2], 2, PathError::Cursor { cursor: 2, len: 2 }),
        ] {
            assert_eq!(Path::at(&keys(pops), cursor), Err(error), "{name}");
        }
        assert!(Path::new(&keys(&[1, 2, 3, 4, 5, 6, 7, 8])).is_ok());
    }

    #[test]
    fn a_path_is_walked_to_its_end() {
        let start = path(&[1, 2, 3], 0);
        assert_eq!((start.here(), start.next()), (PopKey(1), Some(PopKey(2))));
        assert_eq!(start.ahead(), keys(&[2, 3]));
        let end = start.advanced().and_then(|path| path.advanced()).unwrap();
        assert_eq!((end.here(), end.next(), end.advanced()), (PopKey(3), None, None));
        assert_eq!((end.first(), end.last()), (PopKey(1), PopKey(3)));
        assert!(end.ahead().is_empty());
    }

    #[test]
    fn a_detour_replaces_what_lies_ahead() {
        let here = path(&[1, 2, 3, 4], 1);
        assert_eq!(here.rerouted(&keys(&[7, 8, 4])), Ok(path(&[1, 2, 7, 8, 4], 1)));
        assert_eq!(here.rerouted(&keys(&[1, 4])), Err(PathError::Loop(PopKey(1))));
        assert_eq!(here.rerouted(&keys(&[3, 4, 5, 6, 7, 8, 9])), Err(PathError::Length(9)));
    }

    #[test]
    fn the_way_back_covers_what_was_visited() {
        assert_eq!(path(&[1, 2, 3, 4], 2).reversed(), path(&[3, 2, 1], 0));
        assert_eq!(path(&[1], 0).reversed(), path(&[1], 0));
    }

    #[test]
    fn what_was_cut_off_does_not_count() {
        let short = path(&[1, 2], 0);
        assert_eq!(path(&[1, 5, 6, 7], 0).rerouted(&keys(&[2])), Ok(short));
        assert_eq!(path(&[2, 1, 9], 1).reversed(), short);
    }

    #[test]
    fn a_path_can_be_read() {
        let shown = format!("{:?}", path(&[0xaaaa_aaaa, 0xbbbb_bbbb, 0xcccc_cccc], 1));
        assert_eq!(shown, "#aaaaaaaa > [#bbbbbbbb] > #cccccccc");
    }
}
