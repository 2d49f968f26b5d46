//! What a device shows: QR codes on a terminal or as PNG, and frames of text.

use std::path::Path;

use qrcode::render::unicode::Dense1x2;
use qrcode::{Color, QrCode};

use super::error::SimulatorError;
use super::routine::DeviceEvent;

/// Light modules on each side; readers need four.
const QUIET_ZONE: usize = 4;
/// Pixels per module in a PNG.
const MODULE_PX: usize = 8;

/// How a terminal QR code is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Black on white by terminal colours: right in light and dark themes.
    Colour,
    /// Characters only; light modules are the filled ones, right on a dark background.
    Plain,
}

/// The QR code as lines of half blocks, with its quiet zone.
pub fn terminal_qr(text: &str, paint: Paint) -> Result<String, SimulatorError> {
    let code = qr(text)?;
    let (dark, light) = match paint {
        Paint::Colour => (Dense1x2::Dark, Dense1x2::Light),
        Paint::Plain => (Dense1x2::Light, Dense1x2::Dark),
    };
    let drawn = code.render::<Dense1x2>().dark_color(dark).light_color(light).quiet_zone(true).build();
    Ok(match paint {
        Paint::Plain => drawn,
        Paint::Colour => {
            drawn.lines().map(|line| format!("\u{1b}[30;107m{line}\u{1b}[0m")).collect::<Vec<_>>().join("\n")
        }
    })
}

/// The QR code as a greyscale PNG.
pub fn png_qr(text: &str) -> Result<Vec<u8>, SimulatorError> {
    let code = qr(text)?;
    let modules = code.width();
    let side = (modules + 2 * QUIET_ZONE) * MODULE_PX;
    let mut pixels = vec![u8::MAX; side * side];
    let colors = code.to_colors();
    for (index, _) in colors.iter().enumerate().filter(|(_, color)| **color == Color::Dark) {
        let (left, top) = ((index % modules + QUIET_ZONE) * MODULE_PX, (index / modules + QUIET_ZONE) * MODULE_PX);
        for row in top..top + MODULE_PX {
            if let Some(line) = pixels.get_mut(row * side + left..row * side + left + MODULE_PX) {
                line.fill(0);
            }
        }
    }
    let side = u32::try_from(side).map_err(|_| SimulatorError::Screen("it is too large".to_owned()))?;
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, side, side);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(|error| SimulatorError::Screen(error.to_string()))?;
    writer.write_image_data(&pixels).map_err(|error| SimulatorError::Screen(error.to_string()))?;
    writer.finish().map_err(|error| SimulatorError::Screen(error.to_string()))?;
    Ok(png)
}

/// Writes the QR code to a PNG file.
pub fn write_png_qr(path: &Path, text: &str) -> Result<(), SimulatorError> {
    std::fs::write(path, png_qr(text)?)
        .map_err(|error| SimulatorError::Screen(format!("{} cannot be written ({error})", path.display())))
}

/// What is on the device's screen after this event.
pub fn screen_after(event: &DeviceEvent, who: &str, paint: Paint) -> Result<String, SimulatorError> {
    let content = match event {
        DeviceEvent::PairingShown(shown, digits) => {
            let code = terminal_qr(&shown.uri_complete, paint)?;
            format!("{code}\n\nPair me: scan the code, or compare   {}", grouped(digits))
        }
        DeviceEvent::Paired(_) => "Paired.".to_owned(),
        DeviceEvent::CodeShown(shown) => {
            let code = terminal_qr(&shown.verification_uri_complete, paint)?;
            format!(
                "{code}\n\nSign me in: scan the code, or open\n{}\nand type   {}",
                shown.verification_uri, shown.user_code
            )
        }
        DeviceEvent::NumberShown(number) => format!("My number:   {number}"),
        DeviceEvent::SignedIn(tokens) => match &tokens.approved_by {
            Some(names) => format!("Signed in, approved by {names}."),
            None => "Signed in.".to_owned(),
        },
        DeviceEvent::Identify => identify_pattern(),
    };
    Ok(frame(who, &content))
}

/// A frame: who shows it, then its lines, indented.
pub fn frame(who: &str, content: &str) -> String {
    let mut frame = format!("      The {who} shows:\n\n");
    for line in content.lines() {
        frame.push_str(if line.is_empty() { "" } else { "          " });
        frame.push_str(line);
        frame.push('\n');
    }
    frame
}

/// What a device shows that somebody looks for: seen from across the room, and unlike anything else that it shows.
fn identify_pattern() -> String {
    let band = "████    ".repeat(4);
    let shifted = "    ████".repeat(4);
    format!("{band}\n{shifted}\nIDENTIFY: ████  Here I am.\n{band}\n{shifted}")
}

/// Six digits in two groups, as they are read aloud.
pub fn grouped(digits: &str) -> String {
    match digits.split_at_checked(3) {
        Some((left, right)) if !right.is_empty() => format!("{left} {right}"),
        _ => digits.to_owned(),
    }
}

fn qr(text: &str) -> Result<QrCode, SimulatorError> {
    QrCode::new(text).map_err(|error| SimulatorError::Screen(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_png_is_a_png_of_the_size_that_the_modules_ask_for() {
        let png = png_qr("http://127.0.0.1:8628/pair/x?key=y").unwrap();
        assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
        let width = u32::from_be_bytes([png[16], png[17], png[18], png[19]]);
        assert_eq!(width, (29 + 8) * 8);
    }

    #[test]
    fn the_terminal_code_has_a_quiet_zone_of_four_modules() {
        let drawn = terminal_qr("hello", Paint::Plain).unwrap();
        let lines: Vec<&str> = drawn.lines().collect();
        assert!(lines[0].chars().all(|c| c == '█') && lines[1].chars().all(|c| c == '█'));
        // The last line has an upper half only, when the number of modules is odd.
        assert!(lines.iter().rev().skip(1).all(|line| line.starts_with("████")));
    }

    #[test]
    fn digits_are_grouped_for_reading() {
        assert_eq!(grouped("012345"), "012 345");
    }
}
