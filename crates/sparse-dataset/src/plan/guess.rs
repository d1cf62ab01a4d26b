//! Guessing functions from one cell.

use super::{Fold, Origin, Piece, Predictor};
use crate::table::Kind;

/// Bytes of a concatenation that are not from cells, at most: a long system prompt is among them.
const LITERAL: usize = 1 << 16;

/// Functions that explain one sampled cell.
pub(super) fn guesses(target: &[u8], cells: &[(Origin, Kind, &[u8])], out: &mut Vec<Predictor>) {
    let mut add = |predictor: Predictor| {
        if !out.contains(&predictor) {
            out.push(predictor);
        }
    };
    for &(origin, kind, bytes) in cells {
        if bytes == target {
            add(Predictor::Concat(vec![Piece::Cell(origin, Fold::As)]));
            continue;
        }
        for fold in [Fold::Lower, Fold::Upper] {
            if bytes.len() >= 2 && *fold.apply(bytes) == *target {
                add(Predictor::Concat(vec![Piece::Cell(origin, fold)]));
            }
        }
        if kind == Kind::Nested {
            add(Predictor::Element(origin));
        }
        if !target.is_empty() && target.len() < bytes.len() {
            if bytes.ends_with(target) {
                let before = &bytes[..bytes.len() - target.len()];
                for length in [1, 2, 3, 5, 8] {
                    if let Some(at) = before.len().checked_sub(length) {
                        add(Predictor::After(origin, before[at..].to_vec()));
                    }
                }
            }
            if bytes.starts_with(target) {
                let after = &bytes[target.len()..];
                for length in [1, 2, 3, 5, 8] {
                    if length <= after.len() {
                        add(Predictor::Before(origin, after[..length].to_vec()));
                    }
                }
            }
        }
    }
    // A concatenation: the longest cell that fits here, else a literal byte.
    let mut pieces: Vec<Piece> = Vec::new();
    let mut at = 0;
    let mut covered = 0;
    while at < target.len() && pieces.len() < 32 {
        let longest = cells
            .iter()
            .filter(|(_, kind, bytes)| {
                *kind != Kind::Null && bytes.len() >= 3 && target[at..].starts_with(bytes)
            })
            .max_by_key(|(_, _, bytes)| bytes.len());
        match longest {
            Some((origin, _, bytes)) => {
                pieces.push(Piece::Cell(*origin, Fold::As));
                at += bytes.len();
                covered += 1;
            }
            None => {
                match pieces.last_mut() {
                    Some(Piece::Literal(literal)) => literal.push(target[at]),
                    _ => pieces.push(Piece::Literal(vec![target[at]])),
                }
                at += 1;
            }
        }
    }
    let literal: usize = pieces
        .iter()
        .map(|piece| {
            if let Piece::Literal(bytes) = piece {
                bytes.len()
            } else {
                0
            }
        })
        .sum();
    if covered > 0 && at == target.len() && literal <= LITERAL && pieces.len() < 32 {
        add(Predictor::Concat(pieces));
    }
}
