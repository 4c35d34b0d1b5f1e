//! What a verb prints, as a terminal shows it: for the README's picture.

use serde_json::json;
use voicerollout::cli::table::Paint;

use crate::chromium::Page;

/// Characters of a line.
pub const WIDTH: usize = 104;
/// Terminal colours by their code, for dark and light.
const INKS: [(&str, &str, &str); 6] = [
    ("1", "#f0f3f6", "#1f2328"),
    ("2", "#9198a1", "#59636e"),
    ("31", "#ff8182", "#b3261e"),
    ("32", "#4ac26b", "#116329"),
    ("33", "#e3b341", "#7d4e00"),
    ("36", "#76e3ea", "#0b5a6b"),
];

/// What the terminal of the picture can show.
pub fn paint() -> Paint {
    Paint { colour: true, width: Some(WIDTH) }
}

/// Shows a command and what it printed.
pub async fn show(page: &mut Page, theme: &str, command: &str, printed: &str) {
    let dark = theme == "dark";
    let (paper, ink) = if dark { ("#0d1117", "#e6edf3") } else { ("#f6f8fa", "#24292f") };
    let body = format!("<b>$ {command}</b>\n{}", html(printed, dark));
    let style = format!(
        "margin:0;padding:16px;background:{paper};color:{ink};font:14px/1.35 'DejaVu Sans Mono',monospace;width:{WIDTH}ch;white-space:pre"
    );
    page.go("data:text/html,<!doctype html><title>status</title>").await;
    page.eval(&format!(
        "document.body.style.margin = 0; document.body.innerHTML = {}",
        json!(format!("<pre style=\"{style}\">{body}</pre>"))
    ))
    .await;
    let size =
        page.eval("(() => { const at = document.querySelector('pre').getBoundingClientRect(); return [at.width, at.height]; })()").await;
    let [width, height] = [0, 1].map(|i| size[i].as_f64().unwrap().ceil() as u32);
    page.size(width, height).await;
}

/// The text with its colours; a code that is none of the known ones is a mistake.
fn html(printed: &str, dark: bool) -> String {
    let text = printed.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut parts = text.split("\x1b[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_once('m').expect("a colour");
        if code == "0" {
            out += "</span>";
        } else {
            let (_, in_dark, in_light) = INKS.iter().find(|(known, ..)| *known == code).unwrap_or_else(|| panic!("colour {code}"));
            out += &format!(
                "<span style=\"color:{}{}\">",
                if dark { in_dark } else { in_light },
                if code == "1" { ";font-weight:bold" } else { "" }
            );
        }
        out += rest;
    }
    out
}
