//! Text formats come back byte for byte, however they are spelled.
#![allow(clippy::unwrap_used)]

mod common;

use common::{gsm8k, round_trip};
use sparse_dataset::{CompressSpec, Effort};

fn specs() -> Vec<CompressSpec> {
    [Effort::Fast, Effort::Small]
        .map(|effort| CompressSpec {
            effort,
            ..CompressSpec::default()
        })
        .to_vec()
}

#[test]
fn a_shuffled_filtered_edited_derivative_is_small() {
    let base = gsm8k();
    let mut lines: Vec<String> = base.lines().map(str::to_owned).rev().step_by(2).collect();
    lines[3] = lines[3].replace(" the ", " one ");
    lines.push(r#"{"question": "What is new?", "answer": "This. #### 1"}"#.to_owned());
    let derivative = lines.join("\n");
    let report = round_trip(
        ("base.jsonl", base.as_bytes()),
        ("d.jsonl", derivative.as_bytes()),
        &CompressSpec::default(),
    );
    let split = &report.splits[0];
    assert_eq!(
        (
            split.rows,
            split.rows_referenced,
            split.rows_edited,
            split.rows_new
        ),
        (21, 20, 1, 1)
    );
    assert!(report.delta_bytes < 450, "{}", report.delta_bytes);
    assert!(report.byte_exact);
}

#[test]
fn every_spelling_of_json_lines_comes_back() {
    let base = gsm8k();
    let derivatives: &[&[u8]] = &[
        b"",
        b"\n",
        b"{}\n",
        b"\xEF\xBB\xBF{\"question\": \"a\"}\r\n{\"question\": \"b\"}\r\n",
        b"{\"a\":1}\n\n{\"a\": 1.0e5 }\n  {\"a\":-0}\n{\"a\":null}",
        b"{\"a\":\"\\u00e9\\ud83d\\ude00 \\ud800 \\/\"}\n{\"a\":\"\xc3\xa9 plain\"}\n",
        b"{\"a\":\"\xff invalid\"}\n",
        b"{\"b\":[1, 2,3],\"c\":{\"d\":[{\"e\":null}], \"f\":{}}}\n{\"b\":[],\"c\":{\"d\":[],\"f\":{}}}\n",
        b"{\"x\":true,\"y\":NaN}\n{\"y\":false,\"x\":-Infinity}\n",
        b"3\n\"text\"\n[1,2]\nnull\n",
        b"{\"a\":\"\\b\\f\\n\\r\\t\\u0000\\u001f\\\"\\\\\"}\n",
        b"{\"a\":\"x\"}   \n{\"a\" : \"x\"}\n{ \"a\":\"x\"}\n",
    ];
    for derivative in derivatives {
        for spec in specs() {
            round_trip(
                ("base.jsonl", base.as_bytes()),
                ("d.jsonl", derivative),
                &spec,
            );
            round_trip(
                ("base.jsonl", derivative),
                ("d.jsonl", base.as_bytes()),
                &spec,
            );
        }
    }
}

#[test]
fn every_spelling_of_delimited_text_comes_back() {
    let base = b"id,text,n\n1,plain,2\n2,\"quoted, \"\"twice\"\"\",3\n3,\"two\nlines\",4\n";
    let derivatives: &[(&str, &[u8])] = &[
        ("d.csv", b""),
        ("d.csv", b"id\n"),
        ("d.csv", b"id,text\r\n3,\"two\nlines\"\r\n1,plain\r\n"),
        ("d.csv", b"\xEF\xBB\xBFid;text\n1;a,b\n2;\"c;d\"\n"),
        ("d.csv", b"id,text,n\n1,\"plain\",2\n\n2,5\" pipe,3\n,,\n"),
        (
            "d.csv",
            b"\"id\",\"text\"\n\"1\",\"always\"\n\"2\",\"\"\n\"3\",\n",
        ),
        ("d.csv", b"a,b\rold,mac\rline,ends\r"),
        ("d.tsv", b"id\ttext\n1\tplain\n2\tquoted, \"twice\"\n"),
        ("d.csv", b"id,text\n1,\"x\"y\n2,\"a\"\"\"\n3,no end"),
    ];
    for (name, derivative) in derivatives {
        for spec in specs() {
            round_trip(("base.csv", base), (name, derivative), &spec);
            round_trip(
                ("base.jsonl", gsm8k().as_bytes()),
                (name, derivative),
                &spec,
            );
        }
    }
}

#[test]
fn documents_come_back_whatever_their_layout() {
    let squad = r#"{
  "data": [
    {"title": "T", "paragraphs": [
      {"context": "The quick brown fox jumps over it.", "qas": [
        {"id": "a1", "question": "Who jumps?", "answers": [{"answer_start": 16, "text": "fox"}]},
        {"id": "a2", "question": "Over what?", "answers": [{"answer_start": 31, "text": "it"}]}
      ]},
      {"context": "Another paragraph, another text.", "qas": [
        {"id": "a3", "question": "Which?", "answers": [{"answer_start": 0, "text": "Another"}]}
      ]}
    ]}
  ],
  "version": "1.1"
}
"#;
    let others = [
        "[]",
        "{}",
        "3",
        "[1, 2, 3]",
        "[{\"a\": 1}, {\"a\": 2}]\n",
        "[[{\"a\":1}],[{\"a\":2},{\"b\":[{\"c\":1},{\"c\":2}]}]]",
        "{\"a\":[{\"x\":1}],\"b\":[{\"y\":1},{\"y\":2}],\"c\":\"end\"}",
        "  [ {\"a\" : null } , {} ]  ",
        "{\"a\":1}\n{\"a\":2}\n",
    ];
    for other in others {
        for spec in specs() {
            round_trip(
                ("base.json", squad.as_bytes()),
                ("d.json", other.as_bytes()),
                &spec,
            );
            round_trip(
                ("base.json", other.as_bytes()),
                ("d.json", squad.as_bytes()),
                &spec,
            );
        }
    }
    let fewer = squad.replace("{\"id\": \"a1\", \"question\": \"Who jumps?\", \"answers\": [{\"answer_start\": 16, \"text\": \"fox\"}]},\n        ", "");
    let report = round_trip(
        ("base.json", squad.as_bytes()),
        ("d.json", fewer.as_bytes()),
        &CompressSpec::default(),
    );
    assert_eq!(report.splits[0].rows_new, 0);
}

#[test]
fn columns_that_follow_from_others_cost_nothing() {
    let base = gsm8k();
    let mut derivative = String::from("id,final,upper,text,split\n");
    for (index, line) in base.lines().enumerate() {
        let row: Vec<String> = line
            .split("\": \"")
            .skip(1)
            .map(|part| {
                part.split("\", \"")
                    .next()
                    .unwrap()
                    .trim_end_matches("\"}")
                    .replace("\\n", " ")
                    .replace('"', "")
            })
            .collect();
        let last = row[1].rsplit("#### ").next().unwrap();
        derivative += &format!(
            "{index},\"{last}\",\"{}\",\"Q: {} A: {}\",train\n",
            row[0].to_uppercase(),
            row[0],
            row[1]
        );
    }
    let report = round_trip(
        ("base.csv", derivative.as_bytes()),
        ("d.csv", derivative.as_bytes()),
        &CompressSpec::default(),
    );
    assert!(report.delta_bytes < 260, "{}", report.delta_bytes);
}

#[test]
fn the_same_input_gives_the_same_artifact() {
    let base = gsm8k();
    let derivative: String = base
        .lines()
        .rev()
        .map(|line| format!("{}\n", line.replace("a", "b")))
        .collect();
    let artifacts: Vec<Vec<u8>> = (0..2)
        .map(|_| {
            let folder = common::Folder::new();
            let (b, d) = (
                folder.write("b.jsonl", base.as_bytes()),
                folder.write("d.jsonl", derivative.as_bytes()),
            );
            common::compress(&b, &d, &folder.0, &CompressSpec::default()).unwrap();
            std::fs::read(folder.0.join(sparse_dataset::FILE_NAME)).unwrap()
        })
        .collect();
    assert_eq!(artifacts[0], artifacts[1]);
}

/// The turns of a conversation are columns of their own: what they are made of is found in them.
#[test]
fn conversations_made_of_rows_cost_next_to_nothing() {
    let base = gsm8k();
    let fields = |line: &str| -> (String, String) {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| serde_json::to_string(&row[key]).unwrap();
        (text("question"), text("answer"))
    };
    let mut chat: String = base
        .lines()
        .rev()
        .map(|line| {
            let (question, answer) = fields(line);
            format!(
                "{{\"messages\": [{{\"role\": \"user\", \"content\": {question}}}, {{\"role\": \
                 \"assistant\", \"content\": {answer}}}]}}\n"
            )
        })
        .collect();
    let report = round_trip(
        ("b.jsonl", base.as_bytes()),
        ("d.jsonl", chat.as_bytes()),
        &CompressSpec::default(),
    );
    assert!(report.delta_bytes < 420, "{} bytes", report.delta_bytes);
    assert_eq!(report.splits[0].rows_new, 0);
    // Lists of other lengths and kinds beside them, some too long to be taken apart.
    chat.push_str("{\"messages\": []}\n{\"messages\": [1, {\"role\": \"user\"}]}\n");
    for turns in [1, 8, 9, 40] {
        let turn = "{\"role\": \"user\", \"content\": \"again\"}";
        chat.push_str(&format!(
            "{{\"messages\": [{}]}}\n",
            [turn].repeat(turns).join(", ")
        ));
        chat.push_str(&format!(
            "{{\"messages\":[ {} ],\"n\":1}}\n",
            [turn].repeat(turns).join(" ,")
        ));
    }
    for base in [base.as_bytes(), chat.as_bytes()] {
        round_trip(
            ("b.jsonl", base),
            ("d.jsonl", chat.as_bytes()),
            &CompressSpec::default(),
        );
    }
}

/// Keys are known by what they say, however they are spelled.
#[test]
fn escaped_keys_are_the_columns_that_they_say() {
    let base: String = (0..200)
        .map(|n| {
            format!(
                "{{\"gr\\u00f6\\u00dfe\": {n}, \"name\": \"thing number {}\"}}\n",
                n * 7919
            )
        })
        .collect();
    let lines = (0..200)
        .rev()
        .map(|n| format!("{n},thing number {}\n", n * 7919));
    let derivative = "größe,name\n".to_owned() + &lines.collect::<String>();
    let spec = CompressSpec {
        key: Some("größe".to_owned()),
        ..CompressSpec::default()
    };
    let report = round_trip(
        ("b.jsonl", base.as_bytes()),
        ("d.csv", derivative.as_bytes()),
        &spec,
    );
    let split = &report.splits[0];
    assert_eq!((split.rows_referenced, split.rows_edited), (200, 0));
    assert!(
        split.columns_renamed.is_empty(),
        "{:?}",
        split.columns_renamed
    );
}
