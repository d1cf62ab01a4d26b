//! A chat template: malformed, or rendered within bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_engine::{ChatTemplate, Message};

fuzz_target!(|source: &str| {
    let config = serde_json::json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}});
    let Ok(template) = ChatTemplate::new(source, &config) else {
        return;
    };
    let messages = ["system", "user", "assistant"].map(|role| Message {
        role: role.to_owned(),
        content: " What is 1 < 2? ".to_owned(),
    });
    let _ = template.render(&messages, true);
});
