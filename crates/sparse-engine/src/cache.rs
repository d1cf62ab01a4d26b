//! Keys and values of tokens that were seen, in the layout that products read.

use half::slice::HalfFloatSliceExt;

use crate::config::MAX_HEAD_WIDTH;
use crate::kernels::panels::{Values, WIDTH};

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// As they are.
    Single,
    /// As f16: half of what each further token of a long text reads.
    Half,
}

/// Keys and values of one head: keys as outputs of `head_width` inputs, values as `head_width`
/// outputs of one input per token.
#[derive(Debug)]
pub(crate) struct HeadCache {
    keys: Values,
    values: Values,
    head_width: usize,
    capacity: usize,
}

impl HeadCache {
    /// With room for `capacity` tokens, stored in `precision`.
    pub fn new(head_width: usize, capacity: usize, precision: Precision) -> HeadCache {
        let tokens = capacity.next_multiple_of(WIDTH);
        let outputs = head_width.next_multiple_of(WIDTH);
        let zeros = |len| match precision {
            Precision::Single => Values::F32(vec![0.0; len]),
            Precision::Half => Values::F16(vec![0; len]),
        };
        HeadCache {
            keys: zeros(tokens * head_width),
            values: zeros(outputs * tokens),
            head_width,
            capacity: tokens,
        }
    }

    pub fn keys(&self) -> &Values {
        &self.keys
    }

    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Groups of a panel of values: tokens that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Stores the key and value of token `at`.
    pub fn store(&mut self, at: usize, key: &[f32], value: &[f32]) {
        let panel = at / WIDTH * self.head_width * WIDTH + at % WIDTH;
        put(&mut self.keys, key, |d| panel + d * WIDTH);
        let first = |d: usize| (d / WIDTH * self.capacity + at) * WIDTH + d % WIDTH;
        put(&mut self.values, value, first);
    }
}

/// Stores numbers where `place` says; those beyond half precision become its largest.
fn put(into: &mut Values, numbers: &[f32], place: impl Fn(usize) -> usize) {
    let places = (0..numbers.len()).map(place);
    match into {
        Values::F32(values) => {
            for (at, &number) in places.zip(numbers) {
                values[at] = number;
            }
        }
        Values::F16(values) => {
            let most = half::f16::MAX.to_f32();
            let (mut held, mut halves) = ([0.0; MAX_HEAD_WIDTH], [half::f16::ZERO; MAX_HEAD_WIDTH]);
            let (held, halves) = (&mut held[..numbers.len()], &mut halves[..numbers.len()]);
            for (held, number) in held.iter_mut().zip(numbers) {
                *held = number.clamp(-most, most);
            }
            // All at once: one by one, each would be a call.
            halves.convert_from_f32_slice(held);
            for (at, half) in places.zip(halves) {
                values[at] = half.to_bits();
            }
        }
        Values::Bf16(_) => {} // no cache is made so
    }
}

/// What a model remembers of one text, so that every token is worked on once.
#[derive(Debug)]
pub struct Cache {
    /// Layer by layer, head by head.
    pub(crate) layers: Vec<Vec<HeadCache>>,
    pub(crate) len: usize,
    pub(crate) capacity: usize,
}

impl Cache {
    /// Tokens in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets every token, keeping the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}
