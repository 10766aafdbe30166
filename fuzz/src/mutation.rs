//! Encodings that are nearly right: bits flipped, bytes replaced, removed, inserted, repeated, the end cut off, the rest of
//! another encoding put in its place, lengths and numbers changed.
//!
//! Knows encodings only as far as all have something in common: varints, numbers of four and eight bytes, decimal digits.

use std::fmt;
use std::ops::Range;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::numbers::{any_f32, any_f64, any_number};

/// Bytes for a decoder. Its `Debug` is what a regression test is made of.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded(pub Vec<u8>);

/// One change. What it does not apply to stays as it is.
#[derive(Debug, Clone)]
enum Mutation {
    Flip {
        at: Index,
        bit: u8,
    },
    Set {
        at: Index,
        byte: u8,
    },
    Overwrite {
        at: Index,
        bytes: Vec<u8>,
    },
    Insert {
        at: Index,
        bytes: Vec<u8>,
    },
    Remove {
        at: Index,
        length: usize,
    },
    Truncate {
        at: Index,
    },
    Repeat {
        at: Index,
        length: usize,
        to: Index,
    },
    /// From here on what the other encoding has from there on.
    Splice {
        at: Index,
        from: Index,
    },
    /// The varint that begins here becomes this one.
    Varint {
        at: Index,
        number: u64,
    },
    /// One of the decimal numbers becomes these characters.
    Digits {
        which: Index,
        bytes: Vec<u8>,
    },
}

impl fmt::Debug for Encoded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Bytes for a decoder: valid ones with a few changes, sometimes none, and sometimes arbitrary ones. `words` are pieces that
/// mean something to it.
pub fn mutated(
    valid: impl Strategy<Value = Vec<u8>> + Clone + 'static,
    words: &[&str],
) -> impl Strategy<Value = Encoded> {
    let changes = prop::collection::vec(mutation(words), 0..6);
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Encoded),
        15 => (valid.clone(), valid, changes).prop_map(|(mut bytes, other, changes)| {
            changes.iter().for_each(|change| change.apply(&mut bytes, &other));
            Encoded(bytes)
        }),
    ]
}

fn mutation(words: &[&str]) -> BoxedStrategy<Mutation> {
    let at = any::<Index>;
    let number = prop_oneof![
        any_f32().prop_map(|number| number.to_le_bytes().to_vec()),
        any_f64().prop_map(|number| number.to_le_bytes().to_vec()),
        any_number().prop_map(|number| number.to_le_bytes().to_vec()),
        any_number().prop_map(|number| (number as u32).to_le_bytes().to_vec()),
    ];
    let byte = prop_oneof![any::<u8>(), prop::sample::select(vec![0, 1, 0x7f, 0x80, 0xff])];
    let decimal = [
        "0",
        "-1",
        "1",
        "255",
        "65537",
        "4294967295",
        "18446744073709551616",
        "1e400",
        "-1e-400",
        "0.5",
        "nan",
        "null",
    ];
    let word = |words: &[&str]| {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        prop::sample::select(words)
    };
    let words = if words.is_empty() { vec!["\0", "\u{10ffff}", "\n"] } else { words.to_vec() };
    let piece = prop_oneof![2 => word(&words), 1 => prop::collection::vec(any::<u8>(), 1..9)];
    prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        (at(), byte).prop_map(|(at, byte)| Mutation::Set { at, byte }),
        (at(), number).prop_map(|(at, bytes)| Mutation::Overwrite { at, bytes }),
        (at(), word(&words)).prop_map(|(at, bytes)| Mutation::Overwrite { at, bytes }),
        (at(), piece).prop_map(|(at, bytes)| Mutation::Insert { at, bytes }),
        (at(), 1..12_usize).prop_map(|(at, length)| Mutation::Remove { at, length }),
        at().prop_map(|at| Mutation::Truncate { at }),
        (at(), 1..40_usize, at()).prop_map(|(at, length, to)| Mutation::Repeat { at, length, to }),
        (at(), at()).prop_map(|(at, from)| Mutation::Splice { at, from }),
        (at(), any_number()).prop_map(|(at, number)| Mutation::Varint { at, number }),
        (at(), word(&decimal)).prop_map(|(which, bytes)| Mutation::Digits { which, bytes }),
    ]
    .boxed()
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>, other: &[u8]) {
        let length = bytes.len();
        // One place more than there are bytes: the end is a place, too.
        let place = |at: &Index| at.index(length + 1);
        let part = |at: &Index, part: usize| place(at)..place(at).saturating_add(part).min(length);
        match self {
            Self::Flip { at, bit } => {
                if let Some(byte) = bytes.get_mut(place(at)) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Set { at, byte } => {
                if let Some(old) = bytes.get_mut(place(at)) {
                    *old = *byte;
                }
            }
            Self::Overwrite { at, bytes: new } => {
                drop(bytes.splice(part(at, new.len()), new.iter().copied()));
            }
            Self::Insert { at, bytes: new } => {
                drop(bytes.splice(part(at, 0), new.iter().copied()));
            }
            Self::Remove { at, length } => {
                drop(bytes.drain(part(at, *length)));
            }
            Self::Truncate { at } => bytes.truncate(place(at)),
            Self::Repeat { at, length, to } => {
                let repeated = bytes.get(part(at, *length)).unwrap_or_default().to_vec();
                drop(bytes.splice(part(to, 0), repeated));
            }
            Self::Splice { at, from } => {
                bytes.truncate(place(at));
                bytes.extend_from_slice(other.get(from.index(other.len() + 1)..).unwrap_or_default());
            }
            Self::Varint { at, number } => {
                let rest = bytes.get(place(at)..).unwrap_or_default();
                let old = rest.iter().take(9).take_while(|byte| **byte >= 0x80).count() + 1;
                drop(bytes.splice(part(at, old), varint(*number)));
            }
            Self::Digits { which, bytes: new } => {
                let numbers = decimal_numbers(bytes);
                if !numbers.is_empty() {
                    let old = which.get(&numbers).clone();
                    drop(bytes.splice(old, new.iter().copied()));
                }
            }
        }
    }
}

/// As protocol buffers have it: seven bits a byte, the least significant ones first.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Where digits stand.
fn decimal_numbers(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut numbers: Vec<Range<usize>> = Vec::new();
    for (place, _) in bytes.iter().enumerate().filter(|(_, byte)| byte.is_ascii_digit()) {
        match numbers.last_mut() {
            Some(last) if last.end == place => last.end += 1,
            _ => numbers.push(place..place + 1),
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_and_made() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(varint(u64::MAX).len(), 10);
        assert_eq!(decimal_numbers(b"a12 3"), [1..3, 4..5]);
    }

    proptest! {
        #[test]
        fn no_mutation_fails(
            mut bytes in prop::collection::vec(any::<u8>(), 0..20),
            other in prop::collection::vec(any::<u8>(), 0..20),
            changes in prop::collection::vec(mutation(&["word"]), 0..6),
        ) {
            changes.iter().for_each(|change| change.apply(&mut bytes, &other));
            prop_assert!(bytes.len() < 500);
        }
    }
}
