//! A headless Chromium, driven over its DevTools protocol: what a person at a browser sees and does.
//!
//! Knows nothing about the page that it shows.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config, tungstenite::Message, tungstenite::protocol::WebSocketConfig,
};

use crate::process::PATIENCE;

const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/// It shows one page of ours and asks nobody else anything.
const FLAGS: [&str; 11] = [
    "--headless",
    "--hide-scrollbars",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
];

/// A browser with one tab, killed when dropped.
pub struct Browser {
    child: Child,
    socket: WebSocketStream<TcpStream>,
    session: Option<String>,
    calls: u64,
    /// What it has told of itself: requests, messages on the console, exceptions.
    events: Vec<Value>,
    _profile: TempDir,
}

/// Where one is installed: where `CHROMIUM` says, or on the path.
pub fn installed() -> Option<PathBuf> {
    if let Some(path) = env::var_os("CHROMIUM") {
        return Some(path.into());
    }
    let folders: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
    let mut places = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.find(|path| path.is_file())
}

impl Browser {
    /// A new one with a profile of its own, and an empty tab.
    pub async fn start(program: &Path) -> Self {
        let profile = TempDir::new().expect("a temporary directory");
        let mut child = Command::new(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Chromium starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned));
        let url = url.expect("Chromium says where it listens");
        // It must never wait for its log to be read.
        std::thread::spawn(move || lines.for_each(drop));
        let address = url.strip_prefix("ws://").and_then(|rest| rest.split('/').next()).expect("an address");
        let stream = TcpStream::connect(address).await.expect("it listens");
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) = client_async_with_config(&url, stream, Some(config)).await.expect("a web socket");
        let mut browser =
            Self { child, socket, session: None, calls: 0, events: Vec::new(), _profile: profile };
        browser.attach().await;
        browser
    }

    async fn attach(&mut self) {
        let target = self.call("Target.createTarget", json!({"url": "about:blank"})).await;
        let attached = self
            .call("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}))
            .await;
        self.session = Some(attached["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Runtime", "Network", "Log"] {
            self.call(&format!("{domain}.enable"), json!({})).await;
        }
    }

    /// One command, and what came of it.
    pub async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut command = json!({"id": self.calls, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(command.to_string())).await.expect("Chromium listens");
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("Chromium answers");
            let message = message.expect("Chromium runs").expect("a message");
            let Ok(text) = message.to_text() else { continue };
            let message: Value = serde_json::from_str(text).unwrap_or_default();
            if message["id"] == self.calls {
                assert!(message.get("error").is_none(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    pub async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
        self.until("document.readyState === 'complete'").await;
    }

    /// What an expression of JavaScript is.
    pub async fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", parameters).await;
        assert!(result.get("exceptionDetails").is_none(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// The text that an element shows.
    pub async fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({selector:?})?.innerText ?? ''")).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true.
    pub async fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(&format!("Boolean({expression})")).await != json!(true) {
            if Instant::now() > deadline {
                let shown = self.text("body").await;
                panic!("waited in vain for {expression}; the page shows:\n{shown}\n{:?}", self.problems());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Clicks in the middle of an element, as a mouse does.
    pub async fn click(&mut self, selector: &str) {
        let middle = self.middle(selector).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({"type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Touches the middle of an element for a moment.
    pub async fn tap(&mut self, selector: &str) {
        let middle = self.middle(selector).await;
        let points = json!([{"x": middle[0], "y": middle[1]}]);
        for (kind, points) in [("touchStart", points), ("touchEnd", json!([]))] {
            self.call("Input.dispatchTouchEvent", json!({"type": kind, "touchPoints": points})).await;
        }
    }

    /// Where the middle of an element is, once it can be seen.
    async fn middle(&mut self, selector: &str) -> Value {
        let middle = format!(
            "(() => {{ const element = document.querySelector({selector:?}); element.scrollIntoView({{block: 'center', \
             behavior: 'instant'}}); const box = element.getClientRects()[0]; return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        self.value(&middle).await
    }

    /// Presses a key such as `Tab` or `ArrowRight`; `with_control` as Ctrl does with it.
    pub async fn press(&mut self, key: &str, with_control: bool) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            other => panic!("a key of which the code is known, not {other}"),
        };
        for kind in ["rawKeyDown", "keyUp"] {
            let modifiers = if with_control { 2 } else { 0 };
            let event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers});
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// A screen of this width, and `light` or `dark`.
    pub async fn on_screen(&mut self, width: u32, height: u32, scheme: &str) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features})).await;
    }

    /// Writes the whole page as a picture.
    pub async fn picture(&mut self, path: &Path) {
        let shot = self.call("Page.captureScreenshot", json!({"captureBeyondViewport": true})).await;
        let picture = shot["data"].as_str().expect("a picture");
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder for pictures");
        fs::write(path, from_base64(picture)).expect("the picture is written");
    }

    /// Every address that was asked for.
    pub fn requests(&self) -> Vec<String> {
        let requests = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        requests.filter_map(|event| event["params"]["request"]["url"].as_str().map(str::to_owned)).collect()
    }

    /// Exceptions, and errors and warnings on the console.
    pub fn problems(&self) -> Vec<&Value> {
        let is_problem = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] != "log",
            Some("Log.entryAdded") => event["params"]["entry"]["level"] != "verbose",
            _ => false,
        };
        self.events.iter().filter(is_problem).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Base64 of whole groups, as Chromium writes it.
fn from_base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => u32::from(letter - b'A'),
        b'a'..=b'z' => u32::from(letter - b'a') + 26,
        b'0'..=b'9' => u32::from(letter - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let groups = text.trim_end_matches('=').as_bytes().chunks(4);
    let bytes = groups.flat_map(|group| {
        let bits = group.iter().fold(0, |bits, letter| bits << 6 | value(*letter)) << (6 * (4 - group.len()));
        bits.to_be_bytes()[1..group.len()].to_vec()
    });
    bytes.collect()
}
