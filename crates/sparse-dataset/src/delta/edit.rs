//! A cell as an edit of another: pieces kept and text inserted.

use std::collections::HashMap;

/// Insert `insert`, move by `skip` in the old text, keep `keep` bytes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step<'a> {
    pub(crate) insert: &'a [u8],
    pub(crate) skip: i64,
    pub(crate) keep: usize,
}

/// Kept pieces are at least this long.
const SHORTEST: usize = 8;
/// Longer texts are not compared.
const LONGEST: usize = 1 << 22;

/// The steps that make `new` of `old`, if keeping pays.
pub(crate) fn edit<'a>(old: &[u8], new: &'a [u8]) -> Option<Vec<Step<'a>>> {
    if old.is_empty() || new.is_empty() || old.len() > LONGEST || new.len() > LONGEST {
        return None;
    }
    let prefix = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let most = old.len().min(new.len()) - prefix;
    let suffix = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take(most)
        .take_while(|(a, b)| a == b)
        .count();
    // Pieces kept, as (place in new, place in old, length).
    let mut pieces = Vec::new();
    if prefix > 0 {
        pieces.push((0, 0, prefix));
    }
    middle(old, new, prefix, suffix, &mut pieces);
    if suffix > 0 {
        pieces.push((new.len() - suffix, old.len() - suffix, suffix));
    }
    let kept: usize = pieces.iter().map(|piece| piece.2).sum();
    if kept * 5 < new.len() * 2 {
        return None;
    }
    let mut steps = Vec::new();
    let (mut at_new, mut at_old) = (0, 0);
    for (new_start, old_start, length) in pieces {
        steps.push(Step {
            insert: &new[at_new..new_start],
            skip: old_start as i64 - at_old as i64,
            keep: length,
        });
        at_new = new_start + length;
        at_old = old_start + length;
    }
    if at_new < new.len() {
        steps.push(Step {
            insert: &new[at_new..],
            skip: 0,
            keep: 0,
        });
    }
    Some(steps)
}

/// Finds pieces between the common prefix and suffix.
fn middle(
    old: &[u8],
    new: &[u8],
    prefix: usize,
    suffix: usize,
    pieces: &mut Vec<(usize, usize, usize)>,
) {
    let (old_end, new_end) = (old.len() - suffix, new.len() - suffix);
    if old_end - prefix < SHORTEST || new_end - prefix < SHORTEST {
        return;
    }
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for at in (prefix..=old_end - SHORTEST).rev() {
        places.insert(&old[at..at + SHORTEST], at);
    }
    let mut at = prefix;
    let mut written = prefix;
    let mut expected = prefix;
    while at + SHORTEST <= new_end {
        // The same distance as before is the cheapest place to go on.
        let diagonal = expected + (at - written);
        let place = match old.get(diagonal..diagonal + SHORTEST) {
            Some(here) if diagonal + SHORTEST <= old_end && here == &new[at..at + SHORTEST] => {
                Some(diagonal)
            }
            _ => places.get(&new[at..at + SHORTEST]).copied(),
        };
        let Some(mut place) = place else {
            at += 1;
            continue;
        };
        let mut length = SHORTEST;
        while at + length < new_end
            && place + length < old_end
            && new[at + length] == old[place + length]
        {
            length += 1;
        }
        while at > written && place > prefix && new[at - 1] == old[place - 1] {
            at -= 1;
            place -= 1;
            length += 1;
        }
        pieces.push((at, place, length));
        at += length;
        written = at;
        expected = place + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(old: &[u8], steps: &[Step<'_>]) -> Vec<u8> {
        let (mut out, mut at) = (Vec::new(), 0i64);
        for step in steps {
            out.extend_from_slice(step.insert);
            at += step.skip;
            out.extend_from_slice(&old[at as usize..at as usize + step.keep]);
            at += step.keep as i64;
        }
        out
    }

    #[test]
    fn edits_lead_to_the_new_text() {
        let old = b"Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.";
        for new in [
            "Natalia sold clips to 49 of her friends in April, and then she sold half as many clips in May.",
            "In May, Natalia sold clips to 48 of her friends in April, and then she sold half as many clips!",
            "and then she sold half as many clips in May. Natalia sold clips to 48 of her friends in April,",
        ] {
            let steps = edit(old, new.as_bytes());
            assert_eq!(
                steps.map(|steps| apply(old, &steps)),
                Some(new.as_bytes().to_vec())
            );
        }
        assert_eq!(edit(old, b"nothing alike at all here"), None);
    }
}
