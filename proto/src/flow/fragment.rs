//! Cutting a payload that does not fit a datagram of the path.

use bytes::Bytes;

use crate::packet::Fragment;

/// The largest payload of a UDP datagram over IPv4, in bytes.
pub const MAX_PAYLOAD: usize = 65_507;

/// Cuts `payload` into the fewest pieces of at most `max_payload` bytes, without copying.
///
/// All pieces have the same length but the last, which is shorter by less than a byte per piece: so
/// they leave in one GSO batch, and the receiver knows where a piece belongs from its index alone.
/// An empty payload is one empty piece. `None` if the payload exceeds [`MAX_PAYLOAD`], if it would
/// take more than 255 pieces, or if `max_payload` is 0.
pub fn fragments(payload: Bytes, max_payload: usize) -> Option<Fragments> {
    if payload.len() > MAX_PAYLOAD || max_payload == 0 {
        return None;
    }
    let count = u8::try_from(payload.len().div_ceil(max_payload).max(1)).ok()?;
    let piece = payload.len().div_ceil(usize::from(count));
    Some(Fragments { rest: payload, piece, next: 0, count })
}

/// The pieces of a payload, first to last. See [`fragments`].
#[derive(Clone, Debug)]
pub struct Fragments {
    rest: Bytes,
    piece: usize,
    next: u8,
    count: u8,
}

impl Iterator for Fragments {
    type Item = (Fragment, Bytes);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.count {
            return None;
        }
        let fragment = Fragment { index: self.next, count: self.count };
        self.next += 1;
        Some((fragment, self.rest.split_to(self.piece.min(self.rest.len()))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::from(self.count - self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Fragments {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths() {
        for (len, max, lengths) in [
            (0, 100, Some(vec![0])),
            (1, 1, Some(vec![1])),
            (100, 100, Some(vec![100])),
            (101, 100, Some(vec![51, 50])),
            (10, 3, Some(vec![3, 3, 3, 1])),
            (1332, 1000, Some(vec![666, 666])),
            (255, 1, Some(vec![1; 255])),
            (256, 1, None),
            (10, 0, None),
            (MAX_PAYLOAD + 1, 60_000, None),
        ] {
            let cut = fragments(Bytes::from(vec![7; len]), max);
            let got = cut.map(|pieces| pieces.map(|(_, piece)| piece.len()).collect::<Vec<_>>());
            assert_eq!(got, lengths, "{len} bytes in pieces of {max}");
        }
    }

    proptest! {
        #[test]
        fn pieces_are_nearly_equal_and_make_the_payload(
            payload in prop::collection::vec(any::<u8>(), 0..5000), max in 20usize..2000
        ) {
            let pieces = fragments(Bytes::from(payload.clone()), max);
            prop_assert!(pieces.is_some());
            let pieces: Vec<_> = pieces.into_iter().flatten().collect();
            let longest = pieces[0].1.len();
            prop_assert!(longest <= max);
            for (at, (fragment, piece)) in pieces.iter().enumerate() {
                prop_assert_eq!((fragment.index as usize, fragment.count as usize), (at, pieces.len()));
                prop_assert!(longest - piece.len() < pieces.len());
                prop_assert!(at + 1 == pieces.len() || piece.len() == longest);
            }
            let joined: Vec<u8> = pieces.iter().flat_map(|(_, piece)| piece.to_vec()).collect();
            prop_assert_eq!(joined, payload);
        }
    }
}
