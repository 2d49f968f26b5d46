//! Headless Chromium, driven over WebDriver: a free loopback port, a profile of its own, ended by its own handle.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::error::CmdError;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

const INSTALL: &str =
    "Install both: apt-get install --no-install-recommends chromium chromium-driver (or run tests/run, which does)";
/// How long anything may take that should take a moment.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the screen is like.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

impl Look {
    pub const PHONE: Self = Self { width: 390, height: 844, dark: false };
    pub const DESK: Self = Self { width: 1280, height: 900, dark: false };

    pub fn dark(self) -> Self {
        Self { dark: true, ..self }
    }

    /// `390-dark`.
    pub fn name(self) -> String {
        format!("{}-{}", self.width, if self.dark { "dark" } else { "light" })
    }
}

/// The driver's process; ended when dropped.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A browser window.
pub struct Chromium {
    pub client: Client,
    pub look: Look,
}

/// Runs `story` in a new browser and closes the browser, however the story ends.
pub async fn browse<F, T>(look: Look, story: impl FnOnce(Chromium) -> F)
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let profile = tempfile::tempdir().unwrap();
    let (driver, port) = start_driver();
    let client = connect(port, profile.path()).await;
    let browser = Chromium { client: client.clone(), look };
    browser.set_screen(look).await;
    let ended = tokio::spawn(story(browser)).await;
    client.close().await.unwrap();
    drop(driver);
    if let Err(error) = ended {
        std::panic::resume_unwind(error.into_panic());
    }
}

fn start_driver() -> (Driver, u16) {
    let path = program(&["chromedriver"]);
    let mut child =
        Command::new(path).arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("chromedriver");
    let output = BufReader::new(child.stdout.take().unwrap());
    let driver = Driver(child);
    // "ChromeDriver was started successfully on port 40123."
    let port = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
    (driver, port.expect("chromedriver ended without saying its port"))
}

async fn connect(port: u16, profile: &Path) -> Client {
    let arguments = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--force-prefers-reduced-motion",
    ];
    let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
    arguments.push(format!("--user-data-dir={}", profile.display()));
    let capabilities = json!({
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": program(&["chromium", "chromium-browser", "google-chrome"]), "args": arguments},
        "goog:loggingPrefs": {"browser": "ALL"},
    });
    let Value::Object(capabilities) = capabilities else { unreachable!() };
    ClientBuilder::new(HttpConnector::new())
        .capabilities(capabilities)
        .connect(&format!("http://127.0.0.1:{port}"))
        .await
        .unwrap_or_else(|error| panic!("Chromium did not start: {error}. {INSTALL}"))
}

/// The first of these programs that there is.
fn program(names: &[&str]) -> PathBuf {
    let path = environment("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path).chain([PathBuf::from("/usr/bin")]).collect();
    names
        .iter()
        .flat_map(|name| directories.iter().map(move |directory| directory.join(name)))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{} is missing. {INSTALL}", names[0]))
}

/// A variable of the environment, for where programs are and whether pictures are wanted.
#[allow(clippy::disallowed_methods, reason = "the configuration has no say in how tests run")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A command of Chromium's driver that is not in the WebDriver standard.
#[derive(Debug)]
struct Extension {
    path: String,
    body: Value,
}

impl WebDriverCompatibleCommand for Extension {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.body.to_string()))
    }
}

/// The driver gives a command up whose page was left meanwhile, with an answer that is not WebDriver's; the next page can be asked the same.
fn aborted_by_navigation(error: &CmdError) -> bool {
    error.to_string().contains("aborted by navigation")
}

/// A live update or the next page took the element away between finding and using it, so that nothing was done to it. Chromium has two words for it.
/// Not among them is "aborted by navigation": there the click may have been what navigated, and a second one would hit the next page.
fn replaced(error: &CmdError) -> bool {
    error.is_stale_element_reference() || error.to_string().contains("does not belong to the document")
}

impl Chromium {
    async fn command(&self, path: &str, body: Value) -> Value {
        self.client.issue_cmd(Extension { path: path.to_owned(), body }).await.unwrap()
    }

    /// A virtual authenticator (WebAuthn Level 3, section 11): inside the machine, keeps passkeys, and checks who is there if `verifies`.
    pub async fn plug_authenticator_in(&self, verifies: bool) -> String {
        let authenticator = json!({
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": true,
            "hasUserVerification": true, "isUserConsenting": true, "isUserVerified": verifies,
        });
        self.command("webauthn/authenticator", authenticator).await.as_str().unwrap().to_owned()
    }

    /// From now on it checks who is there, or lets everybody in.
    pub async fn set_verified(&self, authenticator: &str, verifies: bool) {
        self.command(&format!("webauthn/authenticator/{authenticator}/uv"), json!({"isUserVerified": verifies})).await;
    }

    /// A command of the DevTools protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        self.command("goog/cdp/execute", body).await
    }

    async fn set_screen(&self, look: Look) {
        let screen =
            json!({"width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", screen).await;
        self.set_theme(look.dark).await;
    }

    /// The page that is open changes at once, without being loaded again.
    async fn set_theme(&self, dark: bool) {
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    /// From now on no page's script runs. Those of the test do, but for timers: so there is no `inspect`.
    pub async fn stop_scripts(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", json!({"value": true})).await;
    }

    /// The languages that the browser says it prefers, from now on.
    pub async fn prefer(&self, languages: &str) {
        self.devtools("Network.enable", json!({})).await;
        let headers = json!({"headers": {"Accept-Language": languages}});
        self.devtools("Network.setExtraHTTPHeaders", headers).await;
    }

    pub async fn open(&self, address: &str) {
        self.client.goto(address).await.unwrap();
    }

    async fn find(&self, what: Locator<'_>) -> Result<Element, CmdError> {
        let found = async {
            loop {
                match self.client.wait().forever().for_element(what).await {
                    Err(error) if aborted_by_navigation(&error) => {}
                    found => return found,
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or(Err(CmdError::WaitTimeout))
    }

    /// The first element, as soon as it is there.
    pub async fn see(&self, css: &str) -> Element {
        match self.find(Locator::Css(css)).await {
            Ok(element) => element,
            Err(error) => panic!("no {css} on this page ({error}):\n{}", self.text().await),
        }
    }

    /// Clicks as a person does: a covered or invisible element fails. One that was replaced meanwhile is looked for again.
    pub async fn click(&self, css: &str) {
        while let Err(error) = self.see(css).await.click().await {
            assert!(replaced(&error), "{css}: {error}");
        }
    }

    pub async fn type_into(&self, css: &str, text: &str) {
        while let Err(error) = self.see(css).await.send_keys(text).await {
            assert!(replaced(&error), "{css}: {error}");
        }
    }

    /// What the first such element says, as soon as it is there.
    pub async fn words(&self, css: &str) -> String {
        loop {
            match self.see(css).await.text().await {
                Err(error) if replaced(&error) || aborted_by_navigation(&error) => {}
                words => return words.unwrap_or_else(|error| panic!("{css}: {error}")),
            }
        }
    }

    /// Waits until the heading is this.
    pub async fn see_heading(&self, heading: &str) {
        let path = format!("//h1[normalize-space(.)='{heading}']");
        if let Err(error) = self.find(Locator::XPath(&path)).await {
            panic!("the page is not '{heading}' ({error}):\n{}", self.text().await);
        }
    }

    pub async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    pub async fn run(&self, script: &str) -> Value {
        loop {
            match self.client.execute(script, Vec::new()).await {
                Err(error) if aborted_by_navigation(&error) => {}
                answer => return answer.unwrap(),
            }
        }
    }

    /// What the browser's console says since the last call.
    pub async fn console(&self) -> Vec<Value> {
        let entries = self.command("se/log", json!({"type": "browser"})).await;
        entries.as_array().cloned().unwrap_or_default()
    }

    /// One element as PNG, large: a screen has a tenth of a printer's dots.
    pub async fn close_up(&self, css: &str) -> Vec<u8> {
        let place = self
            .run(&format!(
                "const r = document.querySelector('{css}').getBoundingClientRect();
                 return [r.x + scrollX - 8, r.y + scrollY - 8, r.width + 16, r.height + 16]"
            ))
            .await;
        let clip = json!({"x": place[0], "y": place[1], "width": place[2], "height": place[3], "scale": 4});
        self.capture(clip).await
    }

    /// The whole page as PNG, or what is in view if the page is longer than `most` pixels.
    pub async fn picture(&self, most: u32) -> Vec<u8> {
        let height = self.run("return document.documentElement.scrollHeight").await.as_u64().unwrap();
        let height = height.clamp(u64::from(self.look.height), u64::from(most));
        self.capture(json!({"x": 0, "y": 0, "width": self.look.width, "height": height, "scale": 1})).await
    }

    async fn capture(&self, clip: Value) -> Vec<u8> {
        let shot = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let answer = self.devtools("Page.captureScreenshot", shot).await;
        let data = answer["data"].as_str().unwrap();
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap()
    }
}

/// Everything that a person can act upon, as CSS.
const ACTIONABLE: &str = "a[href], button, input:not([type=hidden]), select, textarea, summary";

/// Is an element of the page there to be acted upon? A function for scripts.
const IS_ACTIONABLE: &str = "const isActionable = (e) => !e.disabled && e.checkVisibility({visibilityProperty: true});";

/// Ordinary words of ours that stand on two lines.
const BROKEN_WORDS: &str = "
    const broken = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), range = document.createRange();
    while (walker.nextNode()) {
        const text = walker.currentNode;
        if (!text.parentElement.checkVisibility() || text.parentElement.closest('bdi, .id, .key, .vh')) continue;
        if (text.parentElement.closest('thead')?.clientWidth === 1) continue; // hidden on a phone
        for (const word of text.data.matchAll(/[A-Za-z.]{2,15}/g)) {
            range.setStart(text, word.index);
            range.setEnd(text, word.index + word[0].length);
            if (new Set([...range.getClientRects()].map((rect) => rect.top)).size > 1) broken.push(word[0]);
        }
    }
    return broken";

impl Chromium {
    /// Looks at the page as it is: nothing cut off, nothing too small to hit, nothing that a screen reader or a colour-blind person can't use, neither
    /// in light nor in dark, nothing that the console complains about. `known` are complaints that this page is meant to cause.
    pub async fn inspect(&self, page: &str, known: &[&str]) {
        let wide = format!(
            "return [...document.body.querySelectorAll('*')].filter((e) => e.getBoundingClientRect().right > {0}
             && !e.closest('.vh, .top, pre')).map((e) => e.outerHTML.slice(0, 200)).concat(innerWidth == {0} ? [] : [innerWidth])",
            self.look.width
        );
        assert_eq!(self.run(&wide).await, json!([]), "{page}: wider than the screen");
        let script = format!(
            "{IS_ACTIONABLE} return [...document.querySelectorAll('button, .button, nav a, input:not([type=hidden]), select, summary')]
             .filter((e) => isActionable(e) && e.getBoundingClientRect().height < 44).map((e) => e.outerHTML)"
        );
        assert_eq!(self.run(&script).await, json!([]), "{page}: lower than 44 px");
        assert_eq!(self.run(BROKEN_WORDS).await, json!([]), "{page}: words are broken");
        // Between the themes, only colours differ.
        let other = Look { dark: !self.look.dark, ..self.look };
        for (look, rules) in [(other, "{runOnly: ['color-contrast']}"), (self.look, "{}")] {
            self.set_theme(look.dark).await;
            assert_eq!(self.axe(rules).await, Vec::<String>::new(), "{page}, {}", look.name());
            if environment("SCREENSHOTS").is_some() {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/images");
                std::fs::create_dir_all(&folder).unwrap();
                let file = folder.join(format!("{page}-{}.png", look.name()));
                std::fs::write(file, smaller(&self.picture(2600).await)).unwrap();
            }
        }
        self.assert_calm(page, known).await;
    }

    /// No violation of the content security policy, no failed request, no script error since the last look.
    pub async fn assert_calm(&self, page: &str, known: &[&str]) {
        let console: Vec<String> = self.console().await.iter().map(ToString::to_string).collect();
        let complaints: Vec<_> = console
            .iter()
            .filter(|entry| entry.contains("SEVERE") || entry.contains("Content Security Policy"))
            .filter(|entry| !known.iter().any(|known| entry.contains(known)))
            .collect();
        assert!(complaints.is_empty(), "{page}: {complaints:#?}");
    }

    /// What axe-core finds wrong, however small.
    async fn axe(&self, rules: &str) -> Vec<String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/node_modules/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(&path).unwrap_or_else(|_| {
            panic!("axe-core is missing. Install it: npm ci --prefix tests/browser (or run tests/run, which does)")
        });
        if self.run("return typeof axe === 'undefined'").await == true {
            self.client.execute(&axe, Vec::new()).await.unwrap();
        }
        let script = format!(
            "const done = arguments[0]; axe.run(document, {rules})
             .then((found) => done(found.violations), (error) => done([{{impact: 'critical', id: String(error), nodes: []}}]))"
        );
        let found = self.client.execute_async(&script, Vec::new()).await.unwrap();
        let violations = found.as_array().cloned().unwrap_or_default();
        violations
            .iter()
            .map(|violation| {
                let nodes = violation["nodes"].as_array().cloned().unwrap_or_default();
                let places: Vec<_> = nodes.iter().map(|node| node["html"].to_string()).collect();
                format!("{}: {} {places:#?}", violation["id"], violation["help"])
            })
            .collect()
    }

    /// Presses Tab from the top until the focus has been everywhere: it reaches all that can be acted upon, and each time one sees where it is.
    pub async fn assert_keyboard_reaches_everything(&self, page: &str) {
        // A live list that was renewed meanwhile has new elements: then from the top once more.
        for _ in 0..3 {
            match self.missed_by_keyboard(page).await {
                Some(Value::Null) => {}
                Some(what) => panic!("{page}: Tab never reaches {what}"),
                None => return,
            }
        }
        panic!("{page}: it is never quiet for long enough to be walked through");
    }

    /// What Tab does not reach, as HTML; null if it is gone.
    async fn missed_by_keyboard(&self, page: &str) -> Option<Value> {
        let script = format!("{IS_ACTIONABLE} document.activeElement.blur(); window.scrollTo(0, 0); const all = [...document.querySelectorAll('{ACTIONABLE}')]
             .filter(isActionable)
             // Of radio buttons of one name, Tab goes to the chosen one, and arrow keys to the others.
             .filter((e) => e.type !== 'radio' || e.checked || !e.form.querySelector('input[name=' + e.name + ']:checked')); all.forEach((e, i) => e.dataset.place = i); return all.length");
        let count = self.run(&script).await.as_u64().unwrap();
        assert!(count > 3, "{page}: only {count} things to act upon");
        let mut missed: Vec<u64> = (0..count).collect();
        for _ in 0..count + 2 {
            self.press(fantoccini::key::Key::Tab).await;
            let focus = self
                .run(
                    "const e = document.activeElement, s = getComputedStyle(e), r = e.getBoundingClientRect();
                     return [e.dataset.place ?? '', s.outlineStyle, parseFloat(s.outlineWidth), r.bottom > 0 && r.top < innerHeight]",
                )
                .await;
            let Some(place) = focus[0].as_str().and_then(|place| place.parse::<u64>().ok()) else { continue };
            assert!(focus[1] != "none" && focus[2].as_f64() >= Some(2.0), "{page}: focus {place} is not seen: {focus}");
            assert_eq!(focus[3], true, "{page}: focus {place} is out of sight");
            missed.retain(|missed| *missed != place);
        }
        let place = missed.first()?;
        Some(self.run(&format!("return document.querySelector('[data-place=\"{place}\"]')?.outerHTML ?? null")).await)
    }

    /// Presses one key, wherever the focus is.
    pub async fn press(&self, key: fantoccini::key::Key) {
        use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
        let key = char::from(key);
        let actions =
            KeyActions::new("keyboard".into()).then(KeyAction::Down { value: key }).then(KeyAction::Up { value: key });
        self.client.perform_actions(actions).await.unwrap();
    }
}

/// The same picture without its alpha channel and packed as tightly as it goes: it is kept in the repository.
fn smaller(picture: &[u8]) -> Vec<u8> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(picture)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let size = info.color_type.samples();
    let mut rgb: Vec<u8> = pixels[..info.buffer_size()].chunks(size).flat_map(|pixel| pixel[..3].to_vec()).collect();
    // Fifty steps of each colour are enough for flat pages.
    for value in &mut rgb {
        *value = (*value).saturating_add(2) / 5 * 5;
    }
    let mut packed = Vec::new();
    let mut encoder = png::Encoder::new(&mut packed, info.width, info.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    encoder.write_header().unwrap().write_image_data(&rgb).unwrap();
    packed
}
