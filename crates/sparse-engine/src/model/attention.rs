//! Causal attention, head by head: scores, softmax, and the mean of values.

use std::ops::Range;

use rayon::prelude::*;

use super::block::Run;
use crate::cache::HeadCache;
use crate::config::{LayerConfig, ModelConfig};
use crate::kernels::matmul::multiply;
use crate::kernels::panels::WIDTH;
use crate::kernels::{Level, vector};
use crate::linear::Rows;

/// Queries that are worked on together: their scores stay in the second-level cache.
const QUERIES: usize = 48;

/// The texts of a run, one after the other in its rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spans(Vec<Span>);

/// The rows of one text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    /// First row.
    pub start: usize,
    /// Number of rows.
    pub len: usize,
    /// Position of the first row in its text: how many tokens the cache holds.
    pub position: usize,
}

impl Spans {
    /// Texts of these lengths, each from its beginning.
    pub fn fresh(lengths: impl IntoIterator<Item = usize>) -> Spans {
        let mut start = 0;
        let span = |len| {
            let span = Span {
                start,
                len,
                position: 0,
            };
            start += len;
            span
        };
        Spans(lengths.into_iter().map(span).collect())
    }

    /// One text that goes on.
    pub fn continued(len: usize, position: usize) -> Spans {
        Spans(vec![Span {
            start: 0,
            len,
            position,
        }])
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Span> {
        self.0.iter().copied()
    }

    /// The longest text's length, tokens in the cache included.
    pub fn longest(&self) -> usize {
        self.iter()
            .map(|span| span.position + span.len)
            .max()
            .unwrap_or(0)
    }
}

/// Where the heads' queries, keys and values are in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_width: usize,
    /// Whether each head has its query, key and value side by side, as GPT-NeoX does; otherwise
    /// all queries come first, then all keys, then all values.
    pub by_head: bool,
}

impl Layout {
    pub fn of(config: &ModelConfig, by_head: bool) -> Layout {
        Layout {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_width: config.head_width,
            by_head,
        }
    }

    pub fn stride(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_width
    }

    pub fn query_width(&self) -> usize {
        self.heads * self.head_width
    }

    fn query(&self, head: usize) -> usize {
        if self.by_head { 3 * head } else { head }
    }

    fn key(&self, head: usize) -> usize {
        if self.by_head {
            3 * head + 1
        } else {
            self.heads + head
        }
    }

    fn value(&self, head: usize) -> usize {
        if self.by_head {
            3 * head + 2
        } else {
            self.heads + self.kv_heads + head
        }
    }

    /// Part `part` of a row, each as wide as a head.
    fn part<'a>(&self, row: &'a [f32], part: usize) -> &'a [f32] {
        &row[part * self.head_width..][..self.head_width]
    }
}

/// Lets `change` work on each row's queries (`true`) and keys (`false`), with the number of their
/// text and their position in it.
pub(super) fn prepare(
    qkv: &mut [f32],
    layout: Layout,
    spans: &Spans,
    change: impl Fn(usize, usize, bool, &mut [f32]) + Sync,
) {
    let width = layout.head_width;
    for (text, span) in spans.iter().enumerate() {
        let rows = &mut qkv[span.start * layout.stride()..][..span.len * layout.stride()];
        let one = |(row, values): (usize, &mut [f32])| {
            for head in 0..layout.heads {
                let query = &mut values[layout.query(head) * width..][..width];
                change(text, span.position + row, true, query);
            }
            for head in 0..layout.kv_heads {
                let key = &mut values[layout.key(head) * width..][..width];
                change(text, span.position + row, false, key);
            }
        };
        let rows = rows.par_chunks_exact_mut(layout.stride()).enumerate();
        rows.with_min_len(16).for_each(one);
    }
}

/// Attends to what is in `heads` (each text's key-value heads, text after text) and to the rows'
/// own keys and values, which are stored there. Rows of `out` that nobody wants may be left as they
/// are.
pub(super) fn attend(
    qkv: &[f32],
    layout: Layout,
    run: Run<'_>,
    layer: &LayerConfig,
    heads: &mut [HeadCache],
    out: &mut [f32],
) {
    let spans: Vec<Span> = run.spans.iter().collect();
    let wanted = |rows: Range<usize>| {
        run.wanted.is_none_or(|wanted| {
            let next = wanted.partition_point(|&row| row < rows.start);
            wanted.get(next).is_some_and(|&row| row < rows.end)
        })
    };
    let rows = |span: Span| &qkv[span.start * layout.stride()..][..span.len * layout.stride()];
    let store = |(at, cache): (usize, &mut HeadCache)| {
        let (span, head) = (spans[at / layout.kv_heads], at % layout.kv_heads);
        for (row, values) in rows(span).chunks_exact(layout.stride()).enumerate() {
            let key = layout.part(values, layout.key(head));
            let value = layout.part(values, layout.value(head));
            cache.store(span.position + row, key, value);
        }
    };
    if qkv.len() == layout.stride() {
        // One token is stored before another thread would have heard of it.
        heads.iter_mut().enumerate().for_each(store);
    } else {
        heads.par_iter_mut().enumerate().for_each(store);
    }
    // A task is a block of queries of one text: its rows of `out` are its own.
    let mut tasks = Vec::new();
    let mut rest = out;
    for (text, &span) in spans.iter().enumerate() {
        for first in (0..span.len).step_by(QUERIES) {
            let count = QUERIES.min(span.len - first);
            let (now, later) = rest.split_at_mut(count * layout.query_width());
            if wanted(span.start + first..span.start + first + count) {
                tasks.push((text, first, count, now));
            }
            rest = later;
        }
    }
    let heads = &*heads;
    if let [(text, first, 1, out)] = &mut tasks[..] {
        // One token: threads share the heads instead.
        let (span, queries) = (spans[*text], *first..*first + 1);
        let heads = &heads[*text * layout.kv_heads..];
        let group = layout.heads / layout.kv_heads;
        let outs = out.par_chunks_exact_mut(layout.head_width).enumerate();
        return outs.for_each_init(Block::default, |block, (head, out)| {
            block.attend(
                rows(span),
                layout,
                span,
                layer,
                head,
                queries.clone(),
                &heads[head / group],
            );
            out.copy_from_slice(&block.means[..layout.head_width]);
        });
    }
    // Late queries see more keys: they go first, so that threads end together.
    tasks.reverse();
    tasks.into_par_iter().with_max_len(1).for_each_init(
        Block::default,
        |block, (text, first, count, out)| {
            let span = spans[text];
            let group = layout.heads / layout.kv_heads;
            for head in 0..layout.heads {
                let cache = &heads[text * layout.kv_heads + head / group];
                block.attend(
                    rows(span),
                    layout,
                    span,
                    layer,
                    head,
                    first..first + count,
                    cache,
                );
                let width = layout.head_width;
                let padded = width.next_multiple_of(WIDTH);
                for (row, means) in block.means.chunks_exact(padded).take(count).enumerate() {
                    out[row * layout.query_width() + head * width..][..width]
                        .copy_from_slice(&means[..width]);
                }
            }
        },
    );
}

/// Room for a block of queries.
#[derive(Default)]
struct Block {
    scores: Vec<f32>,
    means: Vec<f32>,
    sums: Vec<f32>,
}

impl Block {
    /// Fills `means` with one row, padded to whole panels, for each of the `queries` of `head`.
    #[allow(clippy::too_many_arguments)]
    fn attend(
        &mut self,
        qkv: &[f32],
        layout: Layout,
        span: Span,
        layer: &LayerConfig,
        head: usize,
        queries: Range<usize>,
        cache: &HeadCache,
    ) {
        let level = Level::detect();
        let (width, count) = (layout.head_width, queries.len());
        // The last query sees this many tokens.
        let seen = span.position + queries.end;
        let stride = seen.next_multiple_of(WIDTH);
        self.scores
            .resize((count * stride).max(self.scores.len()), 0.0);
        let begin = queries.start * layout.stride() + layout.query(head) * width;
        let rows = Rows::strided(&qkv[begin..], count, width, layout.stride());
        let panels = 0..stride / WIDTH;
        multiply(
            level,
            rows,
            cache.keys(),
            width,
            panels,
            &mut self.scores,
            stride,
        );

        self.sums.clear();
        for (row, query) in queries.clone().enumerate() {
            let position = span.position + query;
            let first = layer
                .window
                .map_or(0, |window| (position + 1).saturating_sub(window));
            let scores = &mut self.scores[row * stride..][..stride];
            scores[..first].fill(0.0);
            scores[position + 1..].fill(0.0);
            let visible = &mut scores[first..=position];
            vector::scale(level, visible, layer.score_scale);
            let maximum = vector::maximum(level, visible);
            self.sums.push(vector::exp_sum(level, visible, maximum));
        }

        let padded = width.next_multiple_of(WIDTH);
        self.means
            .resize((count * padded).max(self.means.len()), 0.0);
        let rows = Rows::strided(&self.scores, count, seen, stride);
        let panels = 0..padded / WIDTH;
        multiply(
            level,
            rows,
            cache.values(),
            cache.capacity(),
            panels,
            &mut self.means,
            padded,
        );
        for (means, sum) in self.means.chunks_exact_mut(padded).zip(&self.sums) {
            vector::scale(level, means, 1.0 / sum);
        }
    }
}
