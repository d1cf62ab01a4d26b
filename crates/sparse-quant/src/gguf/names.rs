//! From a checkpoint's tensor names to llama.cpp's, and what else changes on the way.

use crate::Architecture;

/// What a tensor is for, as far as its type depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Stays F32: norms, biases, learned positions.
    Full,
    /// The output head, or an embedding that is it too.
    Output,
    /// An embedding that is not the head.
    Embedding,
    /// The attention's values, alone or fused with queries and keys.
    Values,
    /// The second half of the MLP.
    Down,
    /// Another matrix.
    Other,
}

/// How rows move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// They do not.
    Kept,
    /// Each head's two halves are interleaved, for rotation of neighbours.
    Interleaved {
        /// Heads of the matrix.
        heads: usize,
    },
    /// Queries, keys and values of each head become all queries, all keys, all values.
    Grouped {
        /// Heads of the model.
        heads: usize,
    },
}

impl Rows {
    /// The row that row `row` of `rows` is taken from.
    pub fn source(self, row: usize, rows: usize) -> usize {
        match self {
            Rows::Kept => row,
            Rows::Interleaved { heads } => {
                let width = rows / heads;
                let (head, within) = (row / width, row % width);
                head * width + within % 2 * (width / 2) + within / 2
            }
            Rows::Grouped { heads } => {
                let width = rows / heads / 3;
                let (part, rest) = (row / (heads * width), row % (heads * width));
                let (head, within) = (rest / width, rest % width);
                (head * 3 + part) * width + within
            }
        }
    }
}

/// llama.cpp's name for what stands in a block, before `.weight` or `.bias`.
const GPT2: [(&str, &str, Role); 6] = [
    ("ln_1", "attn_norm", Role::Full),
    ("attn.c_attn", "attn_qkv", Role::Values),
    ("attn.c_proj", "attn_output", Role::Other),
    ("ln_2", "ffn_norm", Role::Full),
    ("mlp.c_fc", "ffn_up", Role::Other),
    ("mlp.c_proj", "ffn_down", Role::Down),
];

const LLAMA: [(&str, &str, Role); 11] = [
    ("input_layernorm", "attn_norm", Role::Full),
    ("self_attn.q_proj", "attn_q", Role::Other),
    ("self_attn.k_proj", "attn_k", Role::Other),
    ("self_attn.v_proj", "attn_v", Role::Values),
    ("self_attn.o_proj", "attn_output", Role::Other),
    ("self_attn.q_norm", "attn_q_norm", Role::Full),
    ("self_attn.k_norm", "attn_k_norm", Role::Full),
    ("post_attention_layernorm", "ffn_norm", Role::Full),
    ("mlp.gate_proj", "ffn_gate", Role::Other),
    ("mlp.up_proj", "ffn_up", Role::Other),
    ("mlp.down_proj", "ffn_down", Role::Down),
];

const NEOX: [(&str, &str, Role); 6] = [
    ("input_layernorm", "attn_norm", Role::Full),
    ("attention.query_key_value", "attn_qkv", Role::Values),
    ("attention.dense", "attn_output", Role::Other),
    ("post_attention_layernorm", "ffn_norm", Role::Full),
    ("mlp.dense_h_to_4h", "ffn_up", Role::Other),
    ("mlp.dense_4h_to_h", "ffn_down", Role::Down),
];

const AROUND: [(&str, &str, Role); 11] = [
    ("transformer.wte", "token_embd", Role::Embedding),
    ("wte", "token_embd", Role::Embedding),
    ("transformer.wpe", "position_embd", Role::Full),
    ("wpe", "position_embd", Role::Full),
    ("transformer.ln_f", "output_norm", Role::Full),
    ("ln_f", "output_norm", Role::Full),
    ("model.embed_tokens", "token_embd", Role::Embedding),
    ("model.norm", "output_norm", Role::Full),
    ("gpt_neox.embed_in", "token_embd", Role::Embedding),
    ("gpt_neox.final_layer_norm", "output_norm", Role::Full),
    ("lm_head", "output", Role::Output),
];

/// A tensor's new name, its block and its role; `None` if llama.cpp has no such tensor.
pub(super) fn rename(
    architecture: Architecture,
    tensor: &str,
) -> Option<(String, Option<usize>, Role)> {
    let (stem, kind) = tensor
        .rsplit_once('.')
        .filter(|(_, kind)| matches!(*kind, "weight" | "bias"))?;
    let role = |role| if kind == "bias" { Role::Full } else { role };
    if let Some((block, within)) = architecture.block(stem) {
        let table: &[_] = match architecture {
            Architecture::Gpt2 => &GPT2,
            Architecture::Llama => &LLAMA,
            Architecture::GptNeoX => &NEOX,
            Architecture::Opt => return None,
        };
        let &(_, name, found) = table.iter().find(|(from, ..)| *from == within)?;
        return Some((
            format!("blk.{block}.{name}.{kind}"),
            Some(block),
            role(found),
        ));
    }
    if stem == "embed_out" {
        return Some((format!("output.{kind}"), None, role(Role::Output)));
    }
    let &(_, name, found) = AROUND.iter().find(|(from, ..)| *from == stem)?;
    Some((format!("{name}.{kind}"), None, role(found)))
}

/// A tensor's name in a checkpoint: the way back of [`rename`].
pub(super) fn restore(architecture: Architecture, tensor: &str) -> Option<String> {
    let (stem, kind) = tensor.rsplit_once('.')?;
    if let Some((number, within)) = stem
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'))
    {
        let number: usize = number.parse().ok()?;
        let (prefix, table): (&str, &[_]) = match architecture {
            Architecture::Gpt2 => ("transformer.h", &GPT2),
            Architecture::Llama => ("model.layers", &LLAMA),
            Architecture::GptNeoX => ("gpt_neox.layers", &NEOX),
            Architecture::Opt => return None,
        };
        let &(name, ..) = table.iter().find(|(_, to, _)| *to == within)?;
        return Some(format!("{prefix}.{number}.{name}.{kind}"));
    }
    let prefix = match architecture {
        Architecture::Gpt2 => "transformer.",
        Architecture::GptNeoX if stem == "output" => return Some(format!("embed_out.{kind}")),
        Architecture::GptNeoX => "gpt_neox.",
        _ => "model.",
    };
    let mut names = AROUND
        .iter()
        .filter(|(_, to, _)| *to == stem)
        .map(|one| one.0);
    let name = names.find(|name| name.starts_with(prefix) || *name == "lm_head")?;
    Some(format!("{name}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_roles_are_llama_cpps() {
        let gpt2 = |name| rename(Architecture::Gpt2, name);
        let attention = ("blk.3.attn_qkv.weight".to_owned(), Some(3), Role::Values);
        assert_eq!(
            gpt2("transformer.h.3.attn.c_attn.weight"),
            Some(attention.clone())
        );
        assert_eq!(gpt2("h.3.attn.c_attn.weight"), Some(attention));
        assert_eq!(gpt2("h.3.attn.c_attn.bias").unwrap().2, Role::Full);
        assert_eq!(gpt2("wpe.weight").unwrap().0, "position_embd.weight");
        assert_eq!(gpt2("h.3.attn.masked_bias"), None);
        assert_eq!(
            rename(Architecture::Opt, "model.decoder.layers.0.fc1.weight"),
            None
        );
    }

    #[test]
    fn names_come_back() {
        let names = [
            (Architecture::Gpt2, "transformer.h.3.attn.c_attn.bias"),
            (Architecture::Gpt2, "transformer.wte.weight"),
            (Architecture::Gpt2, "transformer.ln_f.bias"),
            (Architecture::Llama, "model.layers.11.mlp.down_proj.weight"),
            (Architecture::Llama, "model.norm.weight"),
            (Architecture::Llama, "lm_head.weight"),
            (Architecture::GptNeoX, "embed_out.weight"),
            (Architecture::GptNeoX, "gpt_neox.embed_in.weight"),
        ];
        for (architecture, name) in names {
            let (renamed, ..) = rename(architecture, name).unwrap();
            assert_eq!(restore(architecture, &renamed).as_deref(), Some(name));
        }
    }

    #[test]
    fn rows_move_and_none_is_lost() {
        let interleaved = Rows::Interleaved { heads: 2 };
        let order: Vec<usize> = (0..8).map(|row| interleaved.source(row, 8)).collect();
        assert_eq!(order, [0, 2, 1, 3, 4, 6, 5, 7]);
        let grouped = Rows::Grouped { heads: 2 };
        let order: Vec<usize> = (0..12).map(|row| grouped.source(row, 12)).collect();
        assert_eq!(order, [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
    }
}
