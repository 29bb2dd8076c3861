//! A real browser for tests: headless Chromium, spoken to in its DevTools protocol over two pipes. Nothing listens on a
//! port, and no further program is needed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// What Chromium is called on different systems.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// A page takes a second; a busy machine may take many.
const PATIENCE: Duration = Duration::from_secs(120);

/// A browser with one page.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    answers: Receiver<Value>,
    last_id: u64,
    session: Option<String>,
    /// What the browser told without being asked.
    events: Vec<Value>,
    has_scripts: bool,
    folder: TempDir,
}

/// The first of [`NAMES`] that is installed.
fn installed() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let there = |name: &&&str| path.split(':').any(|folder| Path::new(folder).join(name).is_file());
    match NAMES.iter().find(there) {
        Some(name) => (*name).to_owned(),
        None => panic!(
            "this test needs a browser and finds none of {NAMES:?}: run `scripts/setup.sh --services`, or \
             `sudo apt-get install chromium`, then try again"
        ),
    }
}

impl Browser {
    pub fn start() -> Browser {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        // the protocol is spoken on 3 and 4
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >&2", "sh", &installed()]);
        command.args(["--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu"]);
        command.args([
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--force-color-profile=srgb",
        ]);
        command.arg(format!("--user-data-dir={}", folder.path().display()));
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            // it refuses to run as root with its sandbox
            command.arg("--no-sandbox");
        }
        let log = fs::File::create(folder.path().join("browser.log")).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap();
        let commands = child.stdin.take().unwrap();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while told.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Browser {
            child,
            commands,
            answers,
            last_id: 0,
            session: None,
            events: Vec::new(),
            has_scripts: true,
            folder,
        };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached =
            browser.call("Target.attachToTarget", json!({"targetId": page["targetId"], "flatten": true}));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1280, 900);
        browser
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut command = json!({"id": self.last_id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.commands
            .write_all(format!("{command}\0").as_bytes())
            .unwrap_or_else(|error| self.give_up(&error));
        loop {
            let answer = self.next(method);
            if answer["id"] != self.last_id {
                self.events.push(answer);
                continue;
            }
            assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
            return answer["result"].clone();
        }
    }

    fn next(&self, waiting_for: &str) -> Value {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(answer) => answer,
            Err(error) => self.give_up(&format!("waiting for {waiting_for}: {error}")),
        }
    }

    fn give_up(&self, why: &dyn std::fmt::Display) -> ! {
        let log = fs::read_to_string(self.folder.path().join("browser.log")).unwrap_or_default();
        // there is no message bus where tests run, and it complains of that at length
        let log: Vec<&str> = log.lines().filter(|line| !line.contains("dbus")).collect();
        panic!("the browser does not answer: {why}\n{}", log.join("\n"))
    }

    /// Opens a file and waits until it is there.
    pub fn open(&mut self, file: &Path) {
        let url = url::Url::from_file_path(file).unwrap();
        self.call("Page.navigate", json!({"url": "about:blank"}));
        while self.value("location.href") != "about:blank" {
            crate::support::pause(Duration::from_millis(20));
        }
        self.events.clear();
        self.call("Page.navigate", json!({"url": url.as_str()}));
        let begun = Instant::now();
        let is_there =
            format!("document.readyState === 'complete' && location.href === {}", json!(url.as_str()));
        while self.value(&is_there) != true {
            assert!(begun.elapsed() < PATIENCE, "{url} is not there after {PATIENCE:?}");
            crate::support::pause(Duration::from_millis(20));
        }
        self.settle();
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let result = self.call("Runtime.evaluate", parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    #[track_caller]
    pub fn text(&mut self, expression: &str) -> String {
        let value = self.value(expression);
        value.as_str().unwrap_or_else(|| panic!("{expression} is no text: {value}")).to_owned()
    }

    #[track_caller]
    pub fn number(&mut self, expression: &str) -> f64 {
        let value = self.value(expression);
        value.as_f64().unwrap_or_else(|| panic!("{expression} is no number: {value}"))
    }

    #[track_caller]
    pub fn texts(&mut self, expression: &str) -> Vec<String> {
        let value = self.value(expression);
        let Some(items) = value.as_array() else { panic!("{expression} is no list: {value}") };
        items.iter().map(crate::support::plain).collect()
    }

    /// Waits for the page to draw itself.
    pub fn settle(&mut self) {
        if !self.has_scripts {
            return crate::support::pause(Duration::from_millis(300));
        }
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))");
    }

    fn mouse(&mut self, kind: &str, (x, y): (f64, f64)) {
        let count = i32::from(kind != "mouseMoved");
        let button = if count == 1 { "left" } else { "none" };
        let event = json!({"type": kind, "x": x, "y": y, "button": button, "clickCount": count});
        self.call("Input.dispatchMouseEvent", event);
    }

    /// The middle of the first element that fits, scrolled to.
    #[track_caller]
    fn middle(&mut self, selector: &str) -> (f64, f64) {
        let found = json!(selector);
        let at = self.value(&format!(
            "(() => {{ const e = document.querySelector({found}); e.scrollIntoView({{block: 'center', inline: 'center'}}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        ));
        (at[0].as_f64().unwrap(), at[1].as_f64().unwrap())
    }

    /// Moves the mouse onto an element.
    #[track_caller]
    pub fn point(&mut self, selector: &str) {
        let place = self.middle(selector);
        self.mouse("mouseMoved", place);
        self.settle();
    }

    /// Clicks where an element is seen.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        let place = self.middle(selector);
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            self.mouse(kind, place);
        }
        self.settle();
    }

    /// Presses a key; a single letter is typed.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            "ArrowDown" => 40,
            "ArrowUp" => 38,
            _ => 0,
        };
        let mut down = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code});
        if key.chars().count() == 1 {
            down["text"] = json!(key);
        } else if key == "Enter" {
            down["text"] = json!("\r");
        }
        self.call("Input.dispatchKeyEvent", down);
        self.call(
            "Input.dispatchKeyEvent",
            json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}),
        );
        self.settle();
    }

    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
        self.settle();
    }

    /// The window's size in pixels.
    pub fn size(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    pub fn scheme(&mut self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
        self.settle();
    }

    /// Whether the pages that are opened from now on may run scripts. What tests ask with runs all the same.
    pub fn allow_scripts(&mut self, are_allowed: bool) {
        self.has_scripts = are_allowed;
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": !are_allowed}));
    }

    /// How large the page is when it is printed, in bytes of PDF.
    pub fn print(&mut self) -> usize {
        let printed = self.call("Page.printToPDF", json!({"printBackground": true}));
        printed["data"].as_str().unwrap().len() / 4 * 3
    }

    /// What the page has complained about since it was opened: exceptions, errors on the console, refused scripts and requests.
    pub fn complaints(&mut self) -> Vec<String> {
        self.value("1");
        let bad = self.events.iter().filter(|event| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                ["error", "warning"].contains(&event["params"]["type"].as_str().unwrap())
            }
            Some("Log.entryAdded") => {
                ["error", "warning"].contains(&event["params"]["entry"]["level"].as_str().unwrap())
            }
            _ => false,
        });
        bad.map(|event| event["params"].to_string()).collect()
    }

    /// Every address that was asked for since the page was opened.
    pub fn requests(&mut self) -> Vec<String> {
        self.value("1");
        let asked = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        asked.map(|event| event["params"]["request"]["url"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // its children end when the pipe does
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
