//! QR codes on pages: SVG without style or script, in colours that scan in both themes.

use qrcode::QrCode;
use qrcode::render::svg;

/// The code of a text, with a quiet zone of four modules; empty if the text is too long for any code.
pub fn svg(text: &str) -> String {
    QrCode::new(text).map_or_else(
        |_| String::new(),
        |code| {
            let drawn = code
                .render::<svg::Color<'_>>()
                .min_dimensions(168, 168)
                .quiet_zone(true)
                .dark_color(svg::Color("#000"))
                .light_color(svg::Color("#fff"))
                .build();
            // Inside HTML there is no place for an XML declaration.
            drawn.split_once("?>").map_or(drawn.clone(), |(_, svg)| svg.to_owned())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawing_is_plain_svg_without_style_or_script() {
        let drawn = svg("https://pairgate.example/devices/lobby-printer-01");
        assert!(drawn.starts_with("<svg"), "{}", &drawn[..40]);
        assert!(!drawn.contains("style") && !drawn.contains("script"));
        assert_eq!(svg(&"x".repeat(5000)), "");
    }
}
