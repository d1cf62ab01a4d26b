//! Rotary positions: how fast each pair of a head's values turns.
//!
//! The variants and their formulae are those of transformers' `modeling_rope_utils`.

use std::f64::consts::TAU;

use super::fields::Fields;
use crate::Error;

/// How queries and keys are rotated. The first half of the rotated values turns against the
/// second half.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// How many values of a head turn, from the first on; even.
    pub width: usize,
    /// The base of the frequencies.
    pub theta: f64,
    /// Positions that the model was trained for.
    pub trained: usize,
    /// How frequencies are changed for longer contexts.
    pub scaling: RopeScaling,
}

/// How frequencies are changed for contexts longer than those trained for.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// They are not.
    None,
    /// All divided by the factor.
    Linear {
        /// Above zero.
        factor: f64,
    },
    /// The base grows with the length, once that is beyond what was trained.
    Dynamic {
        /// Above zero.
        factor: f64,
    },
    /// NTK by parts: slow pairs as `Linear`, fast pairs unchanged, a ramp between them.
    Yarn {
        /// Above zero.
        factor: f64,
        /// Factor of queries and keys.
        attention: f64,
        /// Positions before scaling.
        original: f64,
        /// Turns within `original` above which a pair is unchanged.
        fast: f64,
        /// Turns within `original` below which a pair is scaled whole.
        slow: f64,
        /// Whether the ramp's ends are whole pairs.
        truncate: bool,
    },
    /// Llama 3.1: by wavelength, with a smooth passage.
    Llama3 {
        /// Above zero.
        factor: f64,
        /// Wavelengths above `original / low` are scaled whole.
        low: f64,
        /// Wavelengths below `original / high` are unchanged.
        high: f64,
        /// Positions before scaling.
        original: f64,
    },
    /// A factor for each pair.
    Long {
        /// For lengths up to `original`.
        short: Vec<f64>,
        /// For longer ones.
        long: Vec<f64>,
        /// Factor of queries and keys.
        attention: f64,
        /// Positions before scaling.
        original: usize,
    },
}

/// What a configuration's other keys say.
pub(super) struct Defaults {
    pub head_width: usize,
    pub context: usize,
    pub theta: f64,
    /// Share of a head's values that turns; where `None`, the architecture turns whole heads.
    pub share: Option<f64>,
}

/// Reads `rope_parameters` (transformers 5) or `rope_scaling` and the keys beside it.
pub(super) fn parse(fields: &Fields<'_>, defaults: Defaults) -> Result<Rotary, Error> {
    let new = fields.nested("rope_parameters", "rope_parameters: ")?;
    let nested = match new {
        Some(nested) => Some(nested),
        None => fields.nested("rope_scaling", "rope_scaling: ")?,
    };
    let mut theta = defaults.theta;
    // Configurations may name a share even so: transformers reads it wherever there is scaling.
    let mut share = match defaults.share {
        Some(share) => share,
        None => fields.number_or("partial_rotary_factor", 1.0)?,
    };
    let mut scaling = RopeScaling::None;
    if let Some(nested) = nested {
        theta = nested.number_or("rope_theta", theta)?;
        share = nested.number_or("partial_rotary_factor", share)?;
        let width = (defaults.head_width as f64 * share) as usize;
        scaling = parse_scaling(&nested, defaults.context, width, fields)?;
    }
    if defaults.share.is_none() {
        if scaling != RopeScaling::None && share != 1.0 {
            return Err(fields.wrong(format!(
                "partial_rotary_factor should be 1 where rotations are scaled, found {share}"
            )));
        }
        share = 1.0;
    }
    if !(theta > 0.0 && (0.0..=1.0).contains(&share)) {
        return Err(fields.wrong(format!(
            "rope_theta {theta} with a rotated share of {share}"
        )));
    }
    Ok(Rotary {
        width: (defaults.head_width as f64 * share) as usize,
        theta,
        trained: defaults.context,
        scaling,
    })
}

fn parse_scaling(
    nested: &Fields<'_>,
    context: usize,
    width: usize,
    outer: &Fields<'_>,
) -> Result<RopeScaling, Error> {
    let kind = match nested.text("rope_type")? {
        Some(kind) => kind,
        None => nested.text("type")?.unwrap_or("default"),
    };
    let original = match nested.tokens("original_max_position_embeddings")? {
        Some(original) => original,
        None => outer
            .tokens("original_max_position_embeddings")?
            .unwrap_or(context),
    };
    Ok(match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear {
            factor: nested.positive("factor")?,
        },
        "dynamic" => RopeScaling::Dynamic {
            factor: nested.positive("factor")?,
        },
        "yarn" => {
            let factor = nested.positive("factor")?;
            RopeScaling::Yarn {
                factor,
                attention: yarn_attention(nested, factor)?,
                original: original as f64,
                fast: nested.number_or("beta_fast", 32.0)?,
                slow: nested.number_or("beta_slow", 1.0)?,
                truncate: nested.flag("truncate", true)?,
            }
        }
        "llama3" => RopeScaling::Llama3 {
            factor: nested.positive("factor")?,
            low: nested.positive("low_freq_factor")?,
            high: nested.positive("high_freq_factor")?,
            original: original as f64,
        },
        "longrope" => {
            let factors = |key: &str| match nested.numbers(key)? {
                Some(factors)
                    if factors.len() == width / 2 && factors.iter().all(|&one| one > 0.0) =>
                {
                    Ok(factors)
                }
                _ => Err(nested.wrong(format!("{key} should be {} positive numbers", width / 2))),
            };
            let factor = match nested.number("factor")? {
                Some(factor) => factor,
                None => context as f64 / original as f64,
            };
            let attention = match nested.number("attention_factor")? {
                Some(attention) => attention,
                None if factor <= 1.0 => 1.0,
                None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
            };
            RopeScaling::Long {
                short: factors("short_factor")?,
                long: factors("long_factor")?,
                attention,
                original,
            }
        }
        other => return Err(nested.wrong(format!("rope_type {other:?} is not known"))),
    })
}

fn yarn_attention(nested: &Fields<'_>, factor: f64) -> Result<f64, Error> {
    if let Some(attention) = nested.number("attention_factor")? {
        return Ok(attention);
    }
    let scale = |weight: f64| {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * weight * factor.ln() + 1.0
        }
    };
    let (one, all) = (nested.number("mscale")?, nested.number("mscale_all_dim")?);
    Ok(match (one, all) {
        (Some(one), Some(all)) if one != 0.0 && all != 0.0 => scale(one) / scale(all),
        _ => scale(1.0),
    })
}

impl Rotary {
    /// Most positions that can be used, where `context` is what the configuration names. Recipes
    /// for longer texts set YaRN's factor and leave that as it was.
    pub(super) fn context(&self, context: usize) -> usize {
        match self.scaling {
            RopeScaling::Dynamic { factor } if factor > 1.0 => (context as f64 * factor) as usize,
            RopeScaling::Yarn {
                factor, original, ..
            } => context.max((original * factor) as usize),
            _ => context,
        }
    }

    /// Whether frequencies depend on the length of the text.
    pub fn by_length(&self) -> bool {
        matches!(
            self.scaling,
            RopeScaling::Dynamic { .. } | RopeScaling::Long { .. }
        )
    }

    /// The length whose frequencies a text of `length` tokens has: texts with the same have the
    /// same, and those whose frequencies do not depend on their length have 0.
    pub(crate) fn scale_length(&self, length: usize) -> usize {
        match self.scaling {
            RopeScaling::Dynamic { .. } if length > self.trained => length,
            RopeScaling::Long { original, .. } if length > original => original.saturating_add(1),
            _ => 0,
        }
    }

    /// Factor of cosines and sines.
    pub fn attention_factor(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn { attention, .. } | RopeScaling::Long { attention, .. } => attention,
            _ => 1.0,
        }
    }

    /// How far each pair turns from one position to the next, in radians, in a text of `length`
    /// tokens.
    pub fn frequencies(&self, length: usize) -> Vec<f64> {
        let pairs = self.width / 2;
        let power = |theta: f64, pair: usize| theta.powf(-2.0 * pair as f64 / self.width as f64);
        let plain = (0..pairs).map(|pair| power(self.theta, pair));
        match &self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|turn| turn / factor).collect(),
            RopeScaling::Dynamic { factor } => {
                let ratio = length.max(self.trained) as f64 / self.trained as f64;
                let growth = factor * ratio - (factor - 1.0);
                let width = self.width as f64;
                let theta = self.theta * growth.powf(width / (width - 2.0));
                (0..pairs).map(|pair| power(theta, pair)).collect()
            }
            RopeScaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => plain
                .map(|turn| {
                    let wave = TAU / turn;
                    if wave < original / high {
                        turn
                    } else if wave > original / low {
                        turn / factor
                    } else {
                        let smooth = (original / wave - low) / (high - low);
                        (1.0 - smooth) * turn / factor + smooth * turn
                    }
                })
                .collect(),
            RopeScaling::Yarn {
                factor,
                original,
                fast,
                slow,
                truncate,
                ..
            } => {
                let pair_of = |turns: f64| {
                    self.width as f64 * (original / (turns * TAU)).ln() / (2.0 * self.theta.ln())
                };
                let (mut first, mut last) = (pair_of(*fast), pair_of(*slow));
                if *truncate {
                    (first, last) = (first.floor(), last.ceil());
                }
                let (first, mut last) = (first.max(0.0), last.min(self.width as f64 - 1.0));
                if first == last {
                    last += 0.001;
                }
                plain
                    .enumerate()
                    .map(|(pair, turn)| {
                        let ramp = ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
                        turn / factor * ramp + turn * (1.0 - ramp)
                    })
                    .collect()
            }
            RopeScaling::Long {
                short,
                long,
                original,
                ..
            } => {
                let factors = if length > *original { long } else { short };
                plain
                    .zip(factors)
                    .map(|(turn, factor)| turn / factor)
                    .collect()
            }
        }
    }
}
