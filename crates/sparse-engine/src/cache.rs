//! Keys and values of tokens that were seen, in the layout that products read.

use crate::kernels::panels::{Values, WIDTH};

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
    /// With room for `capacity` tokens.
    pub fn new(head_width: usize, capacity: usize) -> HeadCache {
        let tokens = capacity.next_multiple_of(WIDTH);
        let outputs = head_width.next_multiple_of(WIDTH);
        HeadCache {
            keys: Values::F32(vec![0.0; tokens * head_width]),
            values: Values::F32(vec![0.0; outputs * tokens]),
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
        let (Values::F32(keys), Values::F32(values)) = (&mut self.keys, &mut self.values) else {
            return; // both are made as f32 above
        };
        let panel = at / WIDTH * self.head_width * WIDTH + at % WIDTH;
        for (d, &key) in key.iter().enumerate() {
            keys[panel + d * WIDTH] = key;
        }
        for (panel, value) in value.chunks(WIDTH).enumerate() {
            let group = (panel * self.capacity + at) * WIDTH;
            values[group..group + value.len()].copy_from_slice(value);
        }
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
