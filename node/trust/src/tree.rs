//! One signature for many texts: a hash tree (R. Merkle, 1979) over them, of which the top is signed.
//! Each text carries the hashes that lead from it to the top, so that it can be checked alone.
//!
//! Leaves and inner nodes are hashed under different keys, so that none can stand for the other. A
//! node without a sibling goes up as it is.

/// Texts under one signature at most. With more, each would carry more hashes, and a signature for
/// every sixteen costs next to nothing.
pub(crate) const MAX_TOGETHER: usize = 16;

/// Hashes on the longest way to the top.
const MAX_STEPS: usize = MAX_TOGETHER.ilog2() as usize;

const LEAF: &str = "dunlin 2026 statement: a text in its place";
const INNER: &str = "dunlin 2026 statement: two of them";

/// A hash of the tree.
pub(crate) type Hash = [u8; 32];

/// From a leaf to the top.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Path {
    /// Bit n: the n-th sibling stands to the left.
    sides: u8,
    siblings: Vec<Hash>,
}

/// The leaf of a text.
pub(crate) fn leaf(cluster: &[u8; 16], context: &str, text: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(LEAF);
    hasher.update(cluster);
    hasher.update(&(context.len() as u64).to_be_bytes());
    hasher.update(context.as_bytes()).update(text);
    *hasher.finalize().as_bytes()
}

fn inner(left: &Hash, right: &Hash) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(INNER);
    *hasher.update(left).update(right).finalize().as_bytes()
}

/// The top over at most [`MAX_TOGETHER`] leaves, and the way to it from each.
pub(crate) fn grow(leaves: &[Hash]) -> (Hash, Vec<Path>) {
    let mut paths = vec![Path::default(); leaves.len()];
    let mut level = leaves.to_vec();
    let mut height = 0;
    while level.len() > 1 {
        for (leaf, path) in paths.iter_mut().enumerate() {
            let at = leaf >> height;
            if let Some(sibling) = level.get(at ^ 1) {
                path.sides |= u8::from(at & 1 == 1) << path.siblings.len();
                path.siblings.push(*sibling);
            }
        }
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => inner(left, right),
                alone => alone.first().copied().unwrap_or_default(),
            })
            .collect();
        height += 1;
    }
    (level.first().copied().unwrap_or_default(), paths)
}

impl Path {
    /// The top, for who starts at this leaf.
    pub(crate) fn climb(&self, leaf: Hash) -> Hash {
        let siblings = self.siblings.iter().enumerate();
        siblings.fold(leaf, |at, (step, sibling)| {
            match self.sides >> step & 1 == 1 {
                true => inner(sibling, &at),
                false => inner(&at, sibling),
            }
        })
    }

    /// Number of siblings, their sides, the siblings.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::try_from(self.siblings.len()).unwrap_or(u8::MAX));
        out.push(self.sides);
        out.extend(self.siblings.iter().flatten());
    }

    /// Reads what [`Self::write`] wrote, and nothing else.
    pub(crate) fn read(from: &mut crate::encode::Reader<'_>) -> Result<Self, crate::Malformed> {
        let steps = usize::from(from.u8()?);
        let sides = from.u8()?;
        if steps > MAX_STEPS || sides >> steps != 0 {
            return Err(crate::Malformed("no text is that far from its signature"));
        }
        let siblings = (0..steps).map(|_| from.array()).collect::<Result<_, _>>()?;
        Ok(Self { sides, siblings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_finds_the_top_by_its_own_way_only() {
        for count in 1..=MAX_TOGETHER {
            let text = |n: usize| leaf(&[7; 16], "svc/a/b/spec", &[n as u8]);
            let leaves: Vec<Hash> = (0..count).map(text).collect();
            let (top, paths) = grow(&leaves);
            for (n, path) in paths.iter().enumerate() {
                for (m, leaf) in leaves.iter().enumerate() {
                    assert_eq!(path.climb(*leaf) == top, n == m, "{m} by the way of {n}");
                }
                let mut bytes = Vec::new();
                path.write(&mut bytes);
                let mut reader = crate::encode::Reader::new(&bytes);
                assert_eq!(Path::read(&mut reader), Ok(path.clone()));
                assert!(reader.end().is_ok());
                assert!(bytes.len() <= 2 + 32 * MAX_STEPS);
            }
        }
    }

    #[test]
    fn a_leaf_cannot_stand_for_an_inner_node_nor_in_another_place() {
        let (a, b) = ([1; 32], [2; 32]);
        let both = [a, b].concat();
        assert_ne!(leaf(&[0; 16], "", &both), inner(&a, &b));
        assert_ne!(leaf(&[0; 16], "ab", b"c"), leaf(&[0; 16], "a", b"bc"));
        assert_ne!(leaf(&[0; 16], "a", b"b"), leaf(&[1; 16], "a", b"b"));
    }

    #[test]
    fn sides_without_siblings_and_long_ways_are_refused() {
        for bytes in [&[0, 1][..], &[1, 2], &[5, 0], &[255, 0]] {
            let bytes = [bytes, &[0; 32 * 6]].concat();
            let mut reader = crate::encode::Reader::new(&bytes);
            assert!(Path::read(&mut reader).is_err(), "{:?}", &bytes[..2]);
        }
    }
}
