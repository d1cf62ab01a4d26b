//! Any bytes as a text derivative: refused with an error, or rebuilt exactly.
//! The first byte chooses format and options.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sparse_dataset::{CompressSpec, Effort};

const BASE: &str = "{\"a\": \"one text\", \"b\": 1}\n{\"a\": \"two texts\", \"b\": [2, null]}\n";

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let folder = std::env::temp_dir().join(format!("sparse-fuzz-text-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let extension = ["jsonl", "json", "csv", "tsv"][usize::from(choice & 3)];
    let (base, derivative) = (
        folder.join("base.jsonl"),
        folder.join(format!("d.{extension}")),
    );
    std::fs::write(&base, BASE).expect("a temporary file");
    std::fs::write(&derivative, data).expect("a temporary file");
    let spec = CompressSpec {
        lenient: choice & 4 != 0,
        header: choice & 8 == 0,
        effort: if choice & 16 != 0 {
            Effort::Fast
        } else {
            Effort::Small
        },
        ..CompressSpec::default()
    };
    if sparse_dataset::compress(&base, &derivative, &folder, &spec, &()).is_ok() {
        let again = folder.join("again");
        sparse_dataset::reconstruct(&base, &folder, &again, 2, &())
            .expect("what was compressed is rebuilt");
        assert_eq!(std::fs::read(&again).expect("the rebuilt file"), data);
    }
});
