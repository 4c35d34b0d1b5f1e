//! A real Chromium without a window, driven over the DevTools protocol.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Longest time that anything on a page may take; generous, because machines are slow and tests run side by side.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(30);

/// Chromium: from the environment, from the list of paths in the cache folder, or from `PATH`. `None`, and a line that
/// says so, when there is none.
pub fn find() -> Option<PathBuf> {
    const NAME: &str = "VOICEROLLOUT_CHROMIUM";
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = var("VOICEROLLOUT_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("voicerollout")))
        .or_else(|| Some(std::env::home_dir()?.join(".cache/voicerollout")));
    let list = cache.and_then(|cache| std::fs::read_to_string(cache.join("env")).ok()).unwrap_or_default();
    let listed = || list.lines().filter_map(|line| line.split_once('=')).find(|(name, _)| *name == NAME).map(|(_, path)| path.into());
    let on_path = || {
        let dirs: Vec<_> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
        let names = ["chromium", "chromium-headless-shell", "google-chrome"];
        names.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name))).find(|path| path.is_file())
    };
    let found = var(NAME).or_else(listed).or_else(on_path).filter(|path: &PathBuf| path.is_file());
    if found.is_none() {
        // Not eprintln: the test harness would keep that to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: no Chromium; set {NAME} to the path of one");
    }
    found
}

/// A browser with one page. It dies with this value.
pub struct Page {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: String,
    serial: u64,
    /// What went wrong on the page, as its console would say it.
    pub complaints: Vec<String>,
    _browser: Child,
    _profile: tempfile::TempDir,
}

impl Page {
    /// Starts a browser with an empty page; `None` where there is none.
    pub async fn open() -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new(find()?);
        command.args(["--headless", "--remote-debugging-port=0", "--no-first-run", "--disable-gpu", "--hide-scrollbars", "--lang=en-US"]);
        // The pages are our own, and a sandbox cannot be made everywhere that tests run.
        command.args(["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking", "--force-color-profile=srgb"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).env("TZ", "UTC").env("XDG_CACHE_HOME", profile.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut browser = command.spawn().unwrap();
        let address = listening(&mut browser).await;
        // Screenshots come in one message.
        let config = WebSocketConfig::default().max_message_size(Some(64 << 20)).max_frame_size(Some(64 << 20));
        let (socket, _) = tokio_tungstenite::connect_async_with_config(address, Some(config), true).await.unwrap();
        let mut page = Self { socket, session: String::new(), serial: 0, complaints: Vec::new(), _browser: browser, _profile: profile };
        let target = page.send("Target.createTarget", json!({"url": "about:blank"})).await["targetId"].clone();
        let attached = page.send("Target.attachToTarget", json!({"targetId": target, "flatten": true})).await;
        attached["sessionId"].as_str().unwrap().clone_into(&mut page.session);
        for domain in ["Page", "Runtime", "Log"] {
            page.send(&format!("{domain}.enable"), json!({})).await;
        }
        page.size(1280, 900).await;
        Some(page)
    }

    /// Sends a command; its result.
    pub async fn send(&mut self, method: &str, params: Value) -> Value {
        self.serial += 1;
        let id = self.serial;
        let mut message = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(message.to_string())).await.unwrap();
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            let message = message.unwrap_or_else(|_| panic!("{method}: the browser does not answer")).unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let answer: Value = serde_json::from_str(&text).unwrap();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => params["exceptionDetails"]["exception"]["description"].to_string(),
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                format!("{} {}", params["entry"]["text"], params["entry"]["url"])
            }
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => params["args"].to_string(),
            _ => return,
        };
        self.complaints.push(complaint);
    }

    /// Goes to an address, and waits until it has loaded.
    pub async fn go(&mut self, url: &str) {
        // A change of the fragment alone would load nothing.
        self.send("Page.navigate", json!({"url": "about:blank"})).await;
        let gone = self.send("Page.navigate", json!({"url": url})).await;
        assert!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        self.wait("document.readyState === 'complete' && location.protocol !== 'about:'").await;
    }

    /// The value of an expression, which may be a promise.
    pub async fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true});
        let result = self.send("Runtime.evaluate", params).await;
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Text of the first element that matches.
    pub async fn text(&mut self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({})?.textContent ?? '(nothing)'", json!(selector))).await;
        text.as_str().unwrap().to_owned()
    }

    /// Waits until an expression is true.
    pub async fn wait(&mut self, expression: &str) {
        let begun = Instant::now();
        loop {
            // While a page goes and another comes there is nothing to ask.
            if self.eval(&format!("(() => {{ try {{ return Boolean({expression}) }} catch {{ return false }} }})()")).await == true {
                return;
            }
            if begun.elapsed() > PATIENCE {
                let body = self.eval("document.body?.innerText ?? ''").await;
                panic!("{expression} did not become true; complaints: {:?}; the page says: {body}", self.complaints);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until an element's text holds a text.
    pub async fn wait_text(&mut self, selector: &str, text: &str) {
        self.wait(&format!("document.querySelector({})?.textContent.includes({})", json!(selector), json!(text))).await;
    }

    /// Clicks in the middle of an element, as a mouse does.
    pub async fn click(&mut self, selector: &str) {
        let place = format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{block: 'center', behavior: 'instant'}}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()",
            json!(selector)
        );
        let place = self.eval(&place).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.send("Input.dispatchMouseEvent", params).await;
        }
    }

    /// Types into what has the focus.
    pub async fn write(&mut self, text: &str) {
        self.send("Input.insertText", json!({"text": text})).await;
    }

    /// Presses a key, by its name and code.
    pub async fn key(&mut self, name: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let text = (name == "Enter" && kind == "keyDown").then_some("\r");
            let params = json!({"type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code, "text": text});
            let params: serde_json::Map<_, _> = params.as_object().unwrap().clone().into_iter().filter(|(_, v)| !v.is_null()).collect();
            self.send("Input.dispatchKeyEvent", Value::Object(params)).await;
        }
    }

    /// Size of the window, in CSS pixels.
    pub async fn size(&mut self, width: u32, height: u32) {
        let params = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.send("Emulation.setDeviceMetricsOverride", params).await;
    }

    /// What the person prefers: `light` or `dark`.
    pub async fn theme(&mut self, theme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": theme}]);
        self.send("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// What the window shows, as PNG.
    pub async fn picture(&mut self) -> Vec<u8> {
        let shot = self.send("Page.captureScreenshot", json!({"format": "png", "optimizeForSpeed": false})).await;
        BASE64_STANDARD.decode(shot["data"].as_str().unwrap()).unwrap()
    }
}

/// The address that the browser says it listens at.
async fn listening(browser: &mut Child) -> String {
    let mut lines = BufReader::new(browser.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    let address = tokio::time::timeout(PATIENCE, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some(address) = line.strip_prefix("DevTools listening on ") {
                return Some(address.to_owned());
            }
            said.push(line);
        }
        None
    });
    let address = address.await.ok().flatten();
    // What it says later goes nowhere, but somebody has to read it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    address.unwrap_or_else(|| panic!("Chromium does not start: {said:#?}"))
}
