//! Lines to paste into clients.

use std::fmt::Write as _;

use serde_json::json;

/// What a person needs to use the endpoint: where, as whom, and what to paste where.
pub(super) fn recipes(endpoint: &str, user: &str, password: &str) -> String {
    let bold = anstyle::Style::new().bold();
    let cursor = json!({ "mcpServers": { "tunnel": { "url": endpoint } } });
    let vs_code = json!({ "name": "tunnel", "type": "http", "url": endpoint });
    let entries = [
        ("Claude Code", format!("claude mcp add --transport http tunnel {endpoint}    then /mcp to sign in")),
        ("Cursor", format!("in ~/.cursor/mcp.json: {cursor}")),
        ("VS Code", format!("code --add-mcp '{vs_code}'")),
        ("MCP Inspector", format!("npx @modelcontextprotocol/inspector    then Streamable HTTP, {endpoint}")),
    ];
    let mut text = format!(
        "\n  endpoint  {bold}{endpoint}{bold:#}\n  user      {bold}{user}{bold:#}\n  password  {bold}{password}{bold:#}\n"
    );
    for (client, line) in entries {
        let _ = write!(text, "\n  {client:<14} {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_gets_the_endpoint() {
        let text = recipes("http://localhost:4000/mcp", "demo", "secret-words");
        assert_eq!(text.matches("http://localhost:4000/mcp").count(), 5);
        assert!(text.contains("secret-words"));
    }
}
