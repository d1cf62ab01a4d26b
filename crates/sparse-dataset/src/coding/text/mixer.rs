//! Logistic mixing of predictions, in arithmetic that is the same on every
//! machine: IEEE additions, multiplications and divisions in a fixed order,
//! tables instead of library functions.

/// Inputs of one mixer, a multiple of the lanes summed side by side.
pub(crate) const INPUTS: usize = 40;

/// `ln(p / (1 - p))` scaled by 256 and clamped to +-2047, and its inverse.
#[derive(Clone)]
pub(crate) struct Logistic {
    stretch: Vec<i16>,
    squash: Vec<u16>,
}

impl Logistic {
    pub(crate) fn new() -> Self {
        // e^(1/256), multiplied up from e^-8 = 1 / e^8.
        const STEP: f64 = 1.003_913_889_338_347_6;
        const E8: f64 = 2_980.957_987_041_728;
        let mut power = 1.0 / E8;
        let mut squash = Vec::with_capacity(4096);
        for _ in 0..4096 {
            let p = power / (1.0 + power) * 65_536.0;
            squash.push((p as u32).clamp(16, 65_520) as u16);
            power *= STEP;
        }
        let mut stretch = Vec::with_capacity(4096);
        let mut at = 0usize;
        for p in 0..4096u32 {
            while at < 4095 && u32::from(squash[at]) < p * 16 + 8 {
                at += 1;
            }
            stretch.push(at as i16 - 2048);
        }
        Self { stretch, squash }
    }

    /// From a 16-bit probability.
    #[inline]
    pub(crate) fn stretch(&self, p: u16) -> f32 {
        f32::from(self.stretch[usize::from(p >> 4)]) / 256.0
    }

    /// To a 16-bit probability.
    #[inline]
    pub(crate) fn squash(&self, x: f32) -> u16 {
        let index = ((x * 256.0) as i32).clamp(-2047, 2047) + 2048;
        self.squash[index as usize]
    }
}

/// Sets of weights, of which a context selects one.
#[derive(Clone)]
pub(crate) struct Mixer {
    weights: Vec<[f32; INPUTS]>,
    selected: usize,
    output: f32,
    rate: f32,
}

impl Mixer {
    pub(crate) fn new(contexts: usize, first_weight: f32) -> Self {
        Self {
            weights: vec![[first_weight; INPUTS]; contexts],
            selected: 0,
            output: 0.0,
            rate: 0.02,
        }
    }

    /// The mixed prediction in the stretched domain.
    #[inline]
    pub(crate) fn mix(&mut self, inputs: &[f32; INPUTS], context: usize) -> f32 {
        self.selected = context;
        let weights = &self.weights[context];
        let mut lanes = [0f32; 8];
        for chunk in 0..INPUTS / 8 {
            for lane in 0..8 {
                lanes[lane] += inputs[chunk * 8 + lane] * weights[chunk * 8 + lane];
            }
        }
        let sum = ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5]))
            + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
        self.output = sum.clamp(-7.99, 7.99);
        self.output
    }

    #[inline]
    pub(crate) fn update(&mut self, inputs: &[f32; INPUTS], logistic: &Logistic, bit: bool) {
        let target = if bit { 1.0 } else { 0.0 };
        let error = (target - f32::from(logistic.squash(self.output)) / 65_536.0) * self.rate;
        for (weight, input) in self.weights[self.selected].iter_mut().zip(inputs) {
            *weight += error * input;
        }
    }

    /// Learns fast first and slowly later.
    pub(crate) fn settle(&mut self) {
        self.rate = (self.rate * 0.9998).max(0.003);
    }
}

/// Refines a probability given a context, by interpolating between learned
/// points (adaptive probability map).
#[derive(Clone)]
pub(crate) struct Refinement {
    points: Vec<u16>,
    at: usize,
}

const POINTS: usize = 33;

impl Refinement {
    pub(crate) fn new(contexts: usize, logistic: &Logistic) -> Self {
        let row: Vec<u16> = (0..POINTS)
            .map(|point| logistic.squash((point as f32 - 16.0) / 2.0))
            .collect();
        Self {
            points: row.repeat(contexts),
            at: 0,
        }
    }

    #[inline]
    pub(crate) fn refine(&mut self, stretched: f32, context: usize) -> u32 {
        let position = (stretched.clamp(-7.99, 7.99) + 8.0) * 2.0;
        let low = position as usize;
        let part = ((position - low as f32) * 256.0) as u32;
        let base = context * POINTS + low;
        self.at = base + usize::from(part >= 128);
        (u32::from(self.points[base]) * (256 - part) + u32::from(self.points[base + 1]) * part) >> 8
    }

    #[inline]
    pub(crate) fn update(&mut self, bit: bool) {
        let point = &mut self.points[self.at];
        let target = if bit { 65_535 } else { 0 };
        *point = (i32::from(*point) + ((target - i32::from(*point)) >> 6)) as u16;
    }
}
