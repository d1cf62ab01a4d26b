//! A `config.json`: refused, or a configuration whose parts agree.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sparse_engine::{ModelConfig, Positions};

fuzz_target!(|input: &[u8]| {
    let Ok(json) = serde_json::from_slice(input) else {
        return;
    };
    let Ok(config) = ModelConfig::parse(&json, Path::new("config.json")) else {
        return;
    };
    assert!(config.heads % config.kv_heads == 0 && config.head_width > 0);
    assert!(!config.layers.is_empty() && config.layers.len() <= 4096);
    if let Positions::Rotary(rotary) = &config.positions {
        assert!(rotary.width <= config.head_width);
        for length in [1, 1000, 1 << 20] {
            assert_eq!(rotary.frequencies(length).len(), rotary.width / 2);
        }
    }
});
