use std::path::PathBuf;

use super::*;

struct Files(tempfile::TempDir);

impl Files {
    fn new(gate: &str, ticks: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("gate.yaml"), gate).unwrap();
        std::fs::write(folder.path().join("ticks.jsonl"), ticks).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, json: bool) -> Result<String, String> {
        let args = ReplayArgs { gate: self.path("gate.yaml"), ticks: self.path("ticks.jsonl"), json };
        let mut out = Vec::new();
        replay(&args, Paint::default(), &mut out).map_err(|e| e.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }
}

const GATE: &str = "
name: pass-rate
falseAbort: 0.05
compare:
  prometheus: {address: 'http://prometheus:9090'}
  bad: voice_calls_failed_total
  total: voice_calls_ended_total
  passIf:
    oddsRatioBelow: {5: 4, 25: 3}
";

const TICKS: &str = r#"{"t": 0, "weight": 5, "canary": {"n": 3, "bad": 1}, "stable": {"n": 57, "bad": 4}}
{"t": 60, "weight": 5, "canary": {"n": 2, "bad": 0}, "stable": {"n": 60, "bad": 5}}

{"t": 120.5, "weight": 25, "canary": {"n": 9, "bad": 9}, "stable": {"n": 60, "bad": 5}}
{"t": 180, "weight": 25, "canary": {"n": 0, "bad": 0}, "stable": {"n": 60, "bad": 5}}
"#;

#[test]
fn a_line_for_each_tick() {
    let json = Files::new(GATE, TICKS).run(true).unwrap();
    let lines: Vec<Value> = json.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    let keys: Vec<&String> = lines[0].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["logE", "logEPass", "t", "verdict"]);
    assert!(json.starts_with("{\"t\":0,\"logE\":0.4917637"), "{json}");
    assert_eq!((&lines[2]["t"], &lines[3]["verdict"]), (&json!(120.5), &json!("Fail")));
    assert_eq!(lines[3]["logE"], lines[2]["logE"], "a tick without canary calls says nothing");
    let table = Files::new(GATE, TICKS).run(false).unwrap();
    assert!(table.starts_with("t ") && table.ends_with("fails at evidence 20x, passes at 20x\n"), "{table}");
    assert!(table.contains("10 of 14") && table.contains("Fail"), "{table}");
}

#[test]
fn bad_input_is_named_with_its_line() {
    for (gate, ticks, part) in [
        (GATE, "{\"t\": 0}\n", "ticks.jsonl, line 1: not a tick: missing field `weight`"),
        (GATE, &TICKS.replace("\"bad\": 9", "\"bad\": 10"), "ticks.jsonl, line 4: canary: 10 bad calls are more than n 9"),
        (GATE, &TICKS.replace("120.5", "60"), "line 4: t 60 does not come after"),
        (GATE, &TICKS.replace("\"n\": 9", "\"n\": -9"), "line 4: not a tick"),
        (GATE, &TICKS.replace("\"n\": 9", "\"nn\": 9"), "line 4: not a tick: unknown field `nn`"),
        (&GATE.replace("bad:", "badd:"), TICKS, "compare.badd: there is no such field"),
        (&GATE.replace("bad:", "good: x\n  bad:"), TICKS, "exactly one of bad, good"),
        (&GATE.replace("0.05", "0.9"), TICKS, "falseAbort"),
        (&GATE.replace("compare:", "compare: {}\nabsolute:"), TICKS, "gate.yaml"),
        ("name: [", TICKS, "gate.yaml: "),
        (&GATE.replace("5: 4", "5: 0.5"), TICKS, "write more than 1"),
    ] {
        let error = Files::new(gate, ticks).run(true).unwrap_err();
        assert!(error.contains(part), "{part}: {error}");
    }
    let gone = ReplayArgs { gate: "no-such-gate.yaml".into(), ticks: "-".into(), json: true };
    assert!(replay(&gone, Paint::default(), &mut Vec::new()).unwrap_err().to_string().contains("no-such-gate.yaml"));
}

#[test]
fn a_gate_may_be_written_as_an_entry_of_a_list() {
    let indented = GATE.trim().replace('\n', "\n  ");
    assert_eq!(Files::new(&format!("- {indented}\n"), TICKS).run(true), Files::new(GATE, TICKS).run(true));
}
