//! The page in a real browser, over a real ensemble: what is shown, streamed, walked through by keyboard, and when a worker dies.
//!
//! Where no Chromium is installed these tests say so and do nothing. It is found on the path, or where `CHROMIUM` says. The page is held
//! against the rules of axe-core, as PyPI has it. Pictures are written to `target/page`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{fs, path::Path};

use chorus_net::testing::{Authority, Validity};
use chorus_tests::{
    Chorus, MemberProcess, PATIENT,
    browser::{self, Browser},
    models,
    python::{Python, succeed},
    skipped,
};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The demo members, a coordinator with its page, and a browser that shows it.
struct Shown {
    members: Vec<MemberProcess>,
    browser: Browser,
    origin: String,
    /// Where the coordinator is administered.
    admin: String,
    _coordinator: Chorus,
    _config: TempDir,
}

impl Shown {
    /// Nothing where there is no browser.
    async fn start() -> Option<Self> {
        let mut shown = Self::start_with(&[]).await?;
        shown.browser.until("document.querySelectorAll('.member [data-health=up]').length === 3").await;
        Some(shown)
    }

    /// The same with more flags for the coordinator, without waiting for anything.
    async fn start_with(flags: &[String]) -> Option<Self> {
        let Some(program) = browser::installed() else {
            skipped("the page", "no Chromium on the path, and CHROMIUM does not say where it is");
            return None;
        };
        let members = models::DEMO.map(|name| MemberProcess::start(name, &models::demo(name)));
        let config = TempDir::new().unwrap();
        let file = config.path().join("ensemble.toml");
        fs::write(&file, PATIENT).unwrap();
        let mut arguments: Vec<String> =
            ["coordinator", "--listen=127.0.0.1:0", "--http=127.0.0.1:0", "--admin=127.0.0.1:0"]
                .map(str::to_owned)
                .to_vec();
        arguments.push(format!("--config={}", file.display()));
        let flag = |member: &MemberProcess| format!("--member={}=http://{}", member.name, member.address);
        arguments.extend(members.iter().map(flag));
        arguments.extend_from_slice(flags);
        let mut coordinator = Chorus::start(&arguments);
        let admin = coordinator.read_until("address for operators", |line| {
            line.strip_prefix("admin listening on ").map(|address| address.trim().to_owned())
        });
        let page = coordinator.read_until("address of the page", |line| {
            line.strip_prefix("page listening on ").map(|address| address.trim().to_owned())
        });
        let mut browser = Browser::start(&program).await;
        let origin = if page.starts_with("https://") { page } else { format!("http://{page}") };
        // It knows nothing of the authorities that tests make.
        browser.call("Security.setIgnoreCertificateErrors", json!({"ignore": true})).await;
        browser.on_screen(1360, 900, "light").await;
        browser.open(&format!("{origin}/")).await;
        Some(Self {
            members: members.into(),
            browser,
            origin,
            admin,
            _coordinator: coordinator,
            _config: config,
        })
    }

    /// Asks for so many tokens, and waits until they are there.
    async fn generate(&mut self, tokens: usize) {
        self.browser.value(&format!("document.getElementById('max_tokens').value = {tokens}")).await;
        self.browser.click("#generate").await;
        self.browser
            .until(&format!(
                "document.querySelector('#progress').innerText.startsWith('Done: {tokens} tokens')"
            ))
            .await;
    }

    /// Nothing went wrong that only the console shows, and nobody else was asked anything.
    fn assert_clean(&self) {
        assert!(self.browser.problems().is_empty(), "{:#?}", self.browser.problems());
        let requests = self.browser.requests();
        assert!(requests.len() > 10, "{requests:?}");
        let strangers: Vec<_> =
            requests.iter().filter(|url| !url.starts_with(&format!("{}/", self.origin))).collect();
        assert!(strangers.iter().all(|url| *url == "about:blank"), "{strangers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_shown_and_a_generation_is_walked_by_keyboard() {
    let Some(mut shown) = Shown::start().await else { return };
    let browser = &mut shown.browser;
    assert_eq!(browser.text("#state-word").await, "Serving");
    assert_eq!(browser.text("#state-sentence").await, "3 of 3 members up; at least 1 of them have to be.");
    let cards = browser.text("#member-list").await;
    for word in ["alto", "bass", "tenor", "1 (33 %)", "Up", "parameters", "cpu", "127.0.0.1:"] {
        assert!(cards.contains(word), "{word} in {cards}");
    }

    // By keyboard alone: from the prompt with Ctrl and Enter, then into the text.
    browser
        .value(
            "document.getElementById('max_tokens').value = 30; document.getElementById('seed').value = '7'",
        )
        .await;
    browser.value("document.getElementById('prompt').focus()").await;
    browser.press("Enter", true).await;
    browser.until("document.querySelector('#progress').innerText === 'Done: 30 tokens.'").await;
    assert_eq!(browser.value("document.querySelectorAll('#tokens [role=option]').length").await, json!(30));
    let summary = browser.text("#summary").await;
    assert!(
        summary.contains("weighted average, seed 7; ended because the most tokens were reached"),
        "{summary}"
    );
    let focused = "document.activeElement.id";
    for _ in 0..20 {
        browser.press("Tab", false).await;
        if browser.value(focused).await == "token-29" {
            break;
        }
    }
    assert_eq!(browser.value(focused).await, "token-29", "the text is one stop, at the token that is shown");
    for (key, at) in [("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 29)] {
        browser.press(key, false).await;
        assert_eq!(browser.value(focused).await, format!("token-{at}"), "after {key}");
        assert_eq!(browser.text("#inspector-title").await, format!("Token {}", at + 1));
        assert_eq!(browser.value("document.querySelectorAll('[aria-selected=true]').length").await, json!(1));
    }
    browser.press("Home", false).await;
    let detail = browser.text("#inspected").await;
    for word in ["Chosen by", "weighted average", "Seed", "7", "alto weighs 33.3 %", "✓ chosen", "ensemble"]
    {
        assert!(detail.contains(word), "{word} in {detail}");
    }
    // Each of those that might have come has a bar of the ensemble and one of every member; the chosen one is among them.
    let bars = "[...document.querySelectorAll('.bars tbody')].map((group) => group.querySelectorAll('.fill').length)";
    let bars: Vec<u64> = serde_json::from_value(browser.value(bars).await).unwrap();
    assert!((5..=6).contains(&bars.len()) && bars.iter().all(|bars| *bars == 4), "{bars:?}");
    let widths = browser.value("[...document.querySelectorAll('.bars .fill')].map((fill) => parseFloat(fill.style.inlineSize)).every((width) => width >= 0 && width <= 100)").await;
    assert_eq!(widths, json!(true));
    // The charts have the tokens, and say so to those who don't see them.
    browser.until("/[1-9]/.test(document.querySelector('#chart-tokens-desc').textContent.split('the highest')[1] ?? '')").await;
    browser.until("document.querySelector('#figures').innerText.includes('30')").await;
    for chart in ["chart-first", "chart-next"] {
        let told =
            format!("/\\d/.test(document.querySelector('#{chart}-desc').textContent.split('now:')[1] ?? '')");
        browser.until(&told).await;
    }

    // What an operator changes is seen without a reload.
    let weighed = Chorus::run(["members", "weight", "alto=2", "--admin", &shown.admin]);
    assert!(weighed.status.success(), "{}", weighed.stderr);
    let share = "document.querySelector('.member[data-key=alto]').innerText.includes('2 (50 %)')";
    shown.browser.until(share).await;
    shown.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_shows_votes_and_what_is_refused_names_its_field() {
    let Some(mut shown) = Shown::start().await else { return };
    let choose = "(() => { const rule = document.getElementById('rule'); rule.value = 'RULE_THRESHOLD_VOTE'; rule.dispatchEvent(new Event('change', {bubbles: true})); })()";
    shown.browser.value(choose).await;
    shown.browser.value("document.getElementById('threshold').value = 0.2").await;
    shown.generate(8).await;
    let browser = &mut shown.browser;
    let detail = browser.text("#inspected").await;
    assert!(detail.contains("threshold vote, threshold 0.2") && detail.contains(" of 3 votes"), "{detail}");
    assert_eq!(browser.value("document.querySelectorAll('.bars .threshold').length % 3").await, json!(0));

    // The browser lets this through, the ensemble does not.
    browser.value("document.getElementById('threshold').value = 1").await;
    browser.click("#generate").await;
    browser.until("!document.querySelector('#failure').hidden").await;
    let failure = browser.text("#failure").await;
    assert!(
        failure.contains("usion.threshold: 1 is not allowed") && failure.contains("INVALID_ARGUMENT"),
        "{failure}"
    );
    assert_eq!(browser.value("document.activeElement.id").await, "threshold");
    assert_eq!(browser.value("document.activeElement.getAttribute('aria-invalid')").await, "true");
    // A refusal is an error to the browser's log, too, and to nobody else.
    check_by_axe(browser, axe().as_deref()).await;
    let problems = browser.problems();
    assert!(problems.len() == 1 && problems[0].to_string().contains("400"), "{problems:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_is_down_and_missing_from_its_tokens() {
    let Some(mut shown) = Shown::start().await else { return };
    let browser = &mut shown.browser;
    browser.value("document.getElementById('max_tokens').value = 4000").await;
    browser.click("#generate").await;
    browser.until("document.querySelectorAll('#tokens [role=option]').length > 5").await;
    assert_eq!(browser.value("document.querySelector('[data-missing][role=option]')").await, json!(null));
    shown.members[2].kill();
    browser.until("document.querySelector('[role=option][data-missing]')").await;
    browser.click("#stop").await;
    browser.until("document.querySelector('#progress').innerText.startsWith('Stopped after ')").await;
    browser.click("[role=option][data-missing]").await;
    let detail = browser.text("#inspected").await;
    let (took_part, missing) = detail.split_once("Missing").expect("who was missing");
    assert!(
        took_part.contains("alto") && took_part.contains("bass") && missing.contains("tenor "),
        "{detail}"
    );
    let heard = browser.value("document.querySelector('[role=option][data-missing]').ariaLabel").await;
    assert!(heard.as_str().unwrap().contains("without tenor"), "{heard}");
    browser.until("document.querySelector('.member[data-key=tenor] .badge').innerText === 'Down'").await;
    assert!(!browser.text(".member[data-key=tenor] .reason").await.is_empty());
    browser.until("document.querySelector('#state-word').innerText === 'Serving, degraded'").await;
    check_by_axe(browser, axe().as_deref()).await;
    browser.picture(&pictures().join("degraded.png")).await;
    // Nobody works for a browser that has stopped.
    browser.until("document.querySelector('#figures').innerText.includes('0 of 128')").await;

    shown.members[2].start_again();
    shown.browser.until("document.querySelector('.member[data-key=tenor] .badge').innerText === 'Up'").await;
    shown.generate(5).await;
    assert_eq!(
        shown.browser.value("document.querySelector('[role=option][data-missing]')").await,
        json!(null)
    );
    shown.assert_clean();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_token_is_wanted_nothing_is_told_without_it() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("tokens.toml");
    let token = "sesame-sesame-sesame";
    fs::write(&file, format!("[[tokens]]\nname = 'people'\nscopes = ['read']\ntoken = '{token}'\n")).unwrap();
    let Some(mut shown) = Shown::start_with(&[format!("--auth-tokens={}", file.display())]).await else {
        return;
    };
    let browser = &mut shown.browser;
    browser.until("document.querySelector('#state-word').innerText === 'No access'").await;
    assert_eq!(browser.value("document.querySelectorAll('.member').length").await, json!(0));
    browser.click("#generate").await;
    browser.until("!document.querySelector('#failure').hidden").await;
    let failure = browser.text("#failure").await;
    assert!(failure.contains("there is no token") && failure.contains("UNAUTHENTICATED"), "{failure}");
    check_by_axe(browser, axe().as_deref()).await;
    // Refusals leave the tokens' field within reach.
    let give = format!(
        "(() => {{ const field = document.getElementById('token'); field.value = '{token}'; field.dispatchEvent(new Event('change')); }})()"
    );
    browser.value(&give).await;
    browser.until("document.querySelectorAll('.member [data-health=up]').length === 3").await;
    shown.generate(5).await;
    assert_eq!(shown.browser.value("localStorage.length").await, json!(0), "nothing outlives the tab");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_a_certificate_it_is_served_over_tls_and_not_without() {
    let folder = TempDir::new().unwrap();
    let identity = Authority::new("tests").vouch(&["127.0.0.1"], Validity::Now);
    let [certificate, key] = ["server.pem", "server.key"].map(|name| folder.path().join(name));
    fs::write(&certificate, &identity.certificate).unwrap();
    fs::write(&key, &identity.key).unwrap();
    let flags = [format!("--tls-cert={}", certificate.display()), format!("--tls-key={}", key.display())];
    let Some(mut shown) = Shown::start_with(&flags).await else {
        return;
    };
    assert!(shown.origin.starts_with("https://"), "{}", shown.origin);
    shown.browser.until("document.querySelectorAll('.member [data-health=up]').length === 3").await;
    shown.generate(5).await;
    assert_eq!(shown.browser.value("isSecureContext && location.protocol").await, json!("https:"));
    shown.assert_clean();

    let plain = shown.origin.replace("https://", "");
    let mut stream = tokio::net::TcpStream::connect(&plain).await.unwrap();
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {plain}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // It may be reset, too.
    let _read = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_fits_every_screen_in_light_and_dark() {
    let Some(mut shown) = Shown::start().await else { return };
    shown.generate(40).await;
    shown.browser.click("#token-3").await;
    let axe = axe();
    for (name, width, height) in
        [("desk", 1360, 900), ("tablet", 820, 1100), ("phone", 360, 780), ("small", 320, 640)]
    {
        for scheme in ["light", "dark"] {
            let browser = &mut shown.browser;
            browser.on_screen(width, height, scheme).await;
            for open in [true, false] {
                browser
                    .value(&format!(
                        "document.querySelectorAll('details').forEach((part) => {{ part.open = {open}; }})"
                    ))
                    .await;
                let widths = browser.value("[document.documentElement.scrollWidth, innerWidth]").await;
                assert!(widths[0].as_u64() <= widths[1].as_u64(), "{name}, {scheme}: {widths}");
                check_by_axe(browser, axe.as_deref()).await;
            }
            if name == "phone" {
                for token in [1, 2] {
                    browser.tap(&format!("#token-{token}")).await;
                    let title = format!(
                        "document.querySelector('#inspector-title').innerText === 'Token {}'",
                        token + 1
                    );
                    browser.until(&title).await;
                }
            }
            let ground = browser.value("getComputedStyle(document.body).backgroundColor").await;
            assert_eq!(ground == "rgb(18, 19, 22)", scheme == "dark", "{scheme}: {ground}");
            browser.picture(&pictures().join(format!("{name}-{scheme}.png"))).await;
        }
    }
    shown.assert_clean();
}

fn pictures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/page")
}

/// axe-core, where PyPI can be reached.
fn axe() -> Option<String> {
    let python = Python::or_skip("axe-core looks at the page")?;
    let tell = "import axe_core_python; print(axe_core_python.__path__[0])";
    let folder = succeed(python.program("python").args(["-c", tell]));
    Some(fs::read_to_string(Path::new(folder.trim_end()).join("axe.min.js")).unwrap())
}

/// What axe-core finds wrong for those who see, hear or move otherwise.
async fn check_by_axe(browser: &mut Browser, axe: Option<&str>) {
    let Some(axe) = axe else { return };
    browser.value(&format!("{axe}; true")).await;
    let found = "axe.run(document, {resultTypes: ['violations']}).then(({violations}) => violations.map(({id, nodes}) => [id, nodes.map((node) => node.html)]))";
    assert_eq!(browser.value(found).await, json!([]));
}
