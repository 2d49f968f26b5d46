//! The narrator of `pairgate demo`: numbered steps on the terminal, or the same collected for `--json`.
//!
//! What happens is in `cli/demo.rs`; here is only how it is told. Aligned columns, colour only on a terminal.

use std::io::IsTerminal;

use serde::Serialize;
use serde_json::json;

use super::error::SimulatorError;
use super::routine::DeviceEvent;
use super::screen::{self, Paint};

/// How the story ended.
#[derive(Debug)]
pub enum Ending {
    /// Everything happened as it was told.
    AsTold,
    /// The reader stopped it.
    Stopped,
    /// The current step failed, for this reason.
    Failed(String),
}

#[derive(Serialize)]
struct Step {
    number: u8,
    title: &'static str,
    happened: Vec<String>,
}

#[derive(Serialize)]
struct Refused {
    who: &'static str,
    tried: &'static str,
    answer: &'static str,
    why: &'static str,
}

/// Tells the story on the terminal, or collects it for `--json`.
pub struct Story {
    json: bool,
    is_terminal: bool,
    steps: Vec<Step>,
    refused: Vec<Refused>,
}

impl Story {
    /// A story that has not begun.
    pub fn new(json: bool) -> Self {
        let is_terminal = !json && std::io::stdout().is_terminal();
        Self { json, is_terminal, steps: Vec::new(), refused: Vec::new() }
    }

    fn print(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }

    fn painted(&self, code: u8, text: &str) -> String {
        if self.is_terminal { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Who plays whom.
    pub fn opening(&self, is_auto: bool) {
        self.print(
            "Pairgate demo: a broker, a printer, people and a thief. All requests are real, on this machine only.",
        );
        self.print(match is_auto {
            true => "The people are played by the simulator, in the same pages that you would use.",
            false => "You play the technician and the approver, in your browser.",
        });
    }

    /// Begins a step.
    pub fn step(&mut self, number: u8, title: &'static str) {
        self.print(&format!("\n{number:>2}  {}", self.painted(1, title)));
        self.steps.push(Step { number, title, happened: Vec::new() });
    }

    /// Somebody does something.
    pub fn line(&mut self, who: &str, what: &str) {
        self.print(&format!("      {who:<12}{what}"));
        self.note(format!("{who} {what}"));
    }

    /// Something is proved by what just happened.
    pub fn proved(&mut self, what: &str) {
        self.print(&format!("      {}{what}", self.painted(32, "✓ proved    ")));
        self.note(format!("proved: {what}"));
    }

    fn note(&mut self, what: String) {
        if let Some(step) = self.steps.last_mut() {
            step.happened.push(what);
        }
    }

    /// Somebody tries something and is refused.
    pub fn refused(&mut self, who: &'static str, tried: &'static str, answer: &'static str, why: &'static str) {
        self.print(&format!("      {who:<12}tries {tried}"));
        self.print(&format!("      {}{answer}", self.painted(1, "refused     ")));
        self.note(format!("{who} tries {tried}: {answer}"));
        self.refused.push(Refused { who, tried, answer, why });
    }

    /// What the printer shows.
    pub fn screen(&mut self, event: &DeviceEvent) -> Result<(), SimulatorError> {
        let paint = if self.is_terminal { Paint::Colour } else { Paint::Plain };
        self.print(&format!("\n{}\n", screen::screen_after(event, "printer", paint)?.trim_end()));
        Ok(())
    }

    /// What the reader has to do now.
    pub fn wait_for(&self, lines: &[String]) {
        let mut who = self.painted(1, "now         ");
        for line in lines {
            self.print(&format!("      {who}{line}"));
            who = " ".repeat(12);
        }
        self.print("                  (the demo waits for you; Ctrl-C ends it)");
    }

    /// The table of refusals and the last line; with `--json`, everything.
    pub fn end(&self, ending: &Ending) {
        let step = self.steps.last().map_or(0, |step| step.number);
        if self.json {
            let (failed_step, reason) = match ending {
                Ending::AsTold => (None, None),
                Ending::Stopped => (Some(step), Some("stopped")),
                Ending::Failed(reason) => (Some(step), Some(reason.as_str())),
            };
            let is_ok = matches!(ending, Ending::AsTold);
            let told = json!({
                "ok": is_ok, "steps": self.steps, "refused": self.refused, "failed_step": failed_step, "reason": reason,
            });
            println!("{told:#}");
            return;
        }
        if !self.refused.is_empty() {
            self.table();
        }
        match ending {
            Ending::AsTold => println!("\nAll ten steps happened as told."),
            Ending::Stopped => println!("\nStopped in step {step}. Nothing is left running."),
            Ending::Failed(reason) => eprintln!("\nStep {step} failed: {reason}"),
        }
    }

    fn table(&self) {
        let heading = Refused { who: "who", tried: "tried", answer: "answer", why: "why" };
        let rows = || std::iter::once(&heading).chain(&self.refused);
        let width = |cell: fn(&Refused) -> &str| rows().map(|row| cell(row).chars().count()).max().unwrap_or_default();
        let (who, tried, answer) = (width(|row| row.who), width(|row| row.tried), width(|row| row.answer));
        println!("\nWhat was refused\n");
        for row in rows() {
            println!("  {:<who$}  {:<tried$}  {:<answer$}  {}", row.who, row.tried, row.answer, row.why);
        }
    }
}
