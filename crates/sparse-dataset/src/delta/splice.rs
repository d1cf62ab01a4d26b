//! Whole rows without a look at their cells: where columns were added behind
//! those of the base, or none, every line that is as predicted is the base's
//! line with another end.

use std::collections::BTreeMap;

/// An end longer than this is not looked for.
const LONGEST: usize = 1 << 16;

/// What makes the line of a whole row of one template of the line of its base
/// row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Splice {
    pub(crate) template: u32,
    /// Bytes at the end of the base's line that are left out.
    pub(crate) cut: usize,
    /// What stands there instead.
    pub(crate) tail: Vec<u8>,
}

impl Splice {
    fn between(template: u32, base: &[u8], own: &[u8]) -> Option<Self> {
        let same = base.iter().zip(own).take_while(|(a, b)| a == b).count();
        let (cut, tail) = (base.len() - same, &own[same..]);
        (cut <= LONGEST && tail.len() <= LONGEST).then(|| Self {
            template,
            cut,
            tail: tail.to_vec(),
        })
    }

    fn makes(&self, base: &[u8], own: &[u8]) -> bool {
        base.len().checked_sub(self.cut).is_some_and(|kept| {
            own.strip_prefix(&base[..kept])
                .is_some_and(|tail| tail == self.tail)
        })
    }

    /// Appends the line to `out`. Of a line that is shorter than what is cut,
    /// which only a damaged delta has, nothing is kept.
    pub(crate) fn apply(&self, base: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&base[..base.len().saturating_sub(self.cut)]);
        out.extend_from_slice(&self.tail);
    }
}

/// Finds the splices that all whole rows of a file agree on.
#[derive(Debug, Default)]
pub(crate) struct Splicer {
    /// For each template that was seen: nothing where its rows do not agree.
    found: BTreeMap<u32, Option<Splice>>,
}

impl Splicer {
    /// Whether rows of a template may still have one.
    pub(crate) fn is_open(&self, template: u32) -> bool {
        !matches!(self.found.get(&template), Some(None))
    }

    /// Takes note of the lines of a whole row and its base row.
    pub(crate) fn see(&mut self, template: u32, base: &[u8], own: &[u8]) {
        let found = self
            .found
            .entry(template)
            .or_insert_with(|| Splice::between(template, base, own));
        if found
            .as_ref()
            .is_some_and(|splice| !splice.makes(base, own))
        {
            *found = None;
        }
    }

    /// The splices in order of their templates.
    pub(crate) fn into_splices(self) -> Vec<Splice> {
        self.found.into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_end_alike_agree_and_others_do_not() {
        let mut splicer = Splicer::default();
        splicer.see(3, b"{\"a\": 1}\n", b"{\"a\": 1, \"b\": 2}\n");
        splicer.see(3, b"{\"a\": 33}\n", b"{\"a\": 33, \"b\": 2}\n");
        splicer.see(5, b"{\"a\": 1}\n", b"{\"a\": 1}\n");
        splicer.see(5, b"{\"a\": 1}\n", b"{\"a\": 2}\n");
        assert_eq!((splicer.is_open(3), splicer.is_open(5)), (true, false));
        let splices = splicer.into_splices();
        let [splice] = splices.as_slice() else {
            panic!("rows of one template agree");
        };
        assert_eq!((splice.template, splice.cut), (3, 2));
        assert_eq!(splice.tail, b", \"b\": 2}\n");
        let mut out = Vec::new();
        splice.apply(b"{\"a\": 7}\n", &mut out);
        assert_eq!(out, b"{\"a\": 7, \"b\": 2}\n");
        // A line that is shorter than what is cut, of a damaged delta.
        splice.apply(b"}", &mut out);
    }
}
