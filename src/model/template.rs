//! The chat template of `tokenizer_config.json`, rendered as Hugging Face renders it and split around the post.
//!
//! The template is rendered once, with a marker in the post's place. What stands before the marker is the same
//! for all posts (the prefix), what stands after it is short (the tail). A post itself never meets the template.

use minijinja::{Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig};
use minijinja_contrib::pycompat;
use serde_json::Value as Json;

use super::error::ModelError;

const MARKER: &str = "MODERATO-POST-3f9c1e";

/// What `tokenizer_config.json` says that matters here.
#[derive(Debug, Clone, Default)]
pub(super) struct ChatFormat {
    pub template: String,
    pub bos: Option<String>,
    pub eos: Option<String>,
    /// All tokens named in the file, the above among them.
    pub named_tokens: Vec<String>,
}

impl ChatFormat {
    /// Reads the file. `separate` is the text of `chat_template.jinja`, where newer exporters put the template.
    pub(super) fn parse(config: &str, separate: Option<String>) -> Result<Self, ModelError> {
        let config: Json = serde_json::from_str(config)
            .map_err(|error| ModelError::Tokenizer(format!("tokenizer_config.json is not JSON: {error}")))?;
        let token = |name: &str| token_text(config.get(name)?);
        let names = ["bos_token", "eos_token", "pad_token", "unk_token"];
        let template = separate.or_else(|| template_text(config.get("chat_template")?)).ok_or_else(|| {
            ModelError::Prompt(
                "tokenizer_config.json has no chat_template: add the one of the model's instruct version, \
                 for a base model cannot follow a policy"
                    .to_owned(),
            )
        })?;
        Ok(Self {
            template,
            bos: token("bos_token"),
            eos: token("eos_token"),
            named_tokens: names.iter().filter_map(|name| token(name)).collect(),
        })
    }

    /// The text before and after a post under the policy `prompt`.
    pub(super) fn around_post(&self, prompt: &str) -> Result<(String, String), ModelError> {
        if let Some(split) = self.split(prompt, &[("system", prompt), ("user", MARKER)])? {
            return Ok(split);
        }
        // No system role: the policy then heads the user's message.
        let user = format!("{prompt}\n\n{MARKER}");
        self.split(prompt, &[("user", &user)])?.ok_or_else(|| {
            ModelError::Prompt(
                "the chat template drops the policy's prompt, with and without a system role: check chat_template"
                    .to_owned(),
            )
        })
    }

    /// `None` if the template refuses these roles or leaves the prompt out.
    fn split(&self, prompt: &str, messages: &[(&str, &str)]) -> Result<Option<(String, String)>, ModelError> {
        let rendered = match self.render(messages) {
            Ok(rendered) => rendered,
            Err(error) if is_raised(&error) && messages.len() > 1 => return Ok(None),
            Err(error) => return Err(ModelError::Prompt(format!("the chat template cannot be rendered: {error:#}"))),
        };
        let mut parts = rendered.split(MARKER);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(before), Some(_), None) if !before.contains(prompt) => Ok(None),
            (Some(before), Some(after), None) => Ok(Some((before.to_owned(), after.to_owned()))),
            _ => {
                let times = rendered.matches(MARKER).count();
                Err(ModelError::Prompt(format!(
                    "the chat template shows the user's message {times} times; it must show it once: check chat_template"
                )))
            }
        }
    }

    fn render(&self, messages: &[(&str, &str)]) -> Result<String, Error> {
        let mut environment = Environment::new();
        environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
        environment.set_unknown_method_callback(pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, format!("{RAISED}{message}")))
        });
        environment.add_function("strftime_now", fixed_date);
        environment.add_filter("tojson", to_json);
        let messages: Vec<Value> =
            messages.iter().map(|(role, content)| context! { role => *role, content => *content }).collect();
        environment.render_str(
            &self.template,
            context! {
                messages => messages,
                add_generation_prompt => true,
                bos_token => self.bos.as_deref().unwrap_or_default(),
                eos_token => self.eos.as_deref().unwrap_or_default(),
            },
        )
    }
}

const RAISED: &str = "the template says: ";

fn is_raised(error: &Error) -> bool {
    error.detail().is_some_and(|detail| detail.starts_with(RAISED))
}

/// A fixed day, the one that Llama 3.1's own template falls back to: with today's date in the prompt, a verdict
/// could not be repeated tomorrow and every cache would empty at midnight.
fn fixed_date(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, jiff::civil::date(2024, 7, 26).at(0, 0, 0, 0))
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// As `json.dumps`: the built-in filter escapes for HTML, which Hugging Face's does not.
fn to_json(value: &Value) -> Result<Value, Error> {
    serde_json::to_string(value)
        .map(Value::from_safe_string)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// A token is written as plain text or as an object with its content.
fn token_text(value: &Json) -> Option<String> {
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// A template is written as text, or as a list of named ones of which `default` is ours.
fn template_text(value: &Json) -> Option<String> {
    let named = |list: &Vec<Json>| list.iter().find(|entry| entry.get("name") == Some(&"default".into())).cloned();
    let text = match value {
        Json::Array(list) => named(list)?.get("template")?.clone(),
        other => other.clone(),
    };
    text.as_str().map(str::to_owned)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::model) const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' \
        + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}\
        {{ '<|im_start|>assistant\\n' }}{% endif %}";
    pub(in crate::model) const LLAMA2: &str = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
        {% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
        {% set system_message = false %}{% endif %}{% for message in loop_messages %}\
        {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
        {{ raise_exception('Conversation roles must alternate') }}{% endif %}\
        {% if loop.index0 == 0 and system_message != false %}\
        {% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
        {% else %}{% set content = message['content'] %}{% endif %}\
        {% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
        {% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";

    fn format(template: &str) -> ChatFormat {
        let config = json!({"chat_template": template, "bos_token": "<s>", "eos_token": {"content": "</s>"}});
        ChatFormat::parse(&config.to_string(), None).unwrap()
    }

    fn split(template: &str) -> Result<(String, String), ModelError> {
        format(template).around_post("Judge.")
    }

    #[test]
    fn chatml_splits_around_the_post() {
        let (before, after) = split(CHATML).unwrap();
        assert_eq!(before, "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n");
        assert_eq!(after, "<|im_end|>\n<|im_start|>assistant\n");
    }

    #[test]
    fn llama_2_splits_around_the_post() {
        let (before, after) = split(LLAMA2).unwrap();
        assert_eq!(before, "<s>[INST] <<SYS>>\nJudge.\n<</SYS>>\n\n");
        assert_eq!(after, " [/INST]");
    }

    #[test]
    fn a_template_without_a_system_role_gets_the_policy_in_the_users_message() {
        let refusing = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}\
            <u>{{ m['content'] }}</u>{% endfor %}";
        assert_eq!(split(refusing).unwrap(), ("<u>Judge.\n\n".to_owned(), "</u>".to_owned()));
        let dropping = "{% for m in messages if m.role == 'user' %}<u>{{ m.content }}</u>{% endfor %}";
        assert_eq!(split(dropping).unwrap(), ("<u>Judge.\n\n".to_owned(), "</u>".to_owned()));
    }

    #[test]
    fn a_template_that_hides_or_repeats_the_post_is_refused() {
        let hidden = split("{{ messages[0].content }}").unwrap_err().to_string();
        assert!(hidden.contains("0 times"), "{hidden}");
        let twice = split("{{ messages[0].content }}{{ messages[1].content }}{{ messages[1].content }}");
        assert!(twice.unwrap_err().to_string().contains("2 times"));
        assert!(split("{{ raise_exception('never') }}").unwrap_err().to_string().contains("never"));
        assert!(split("{% if %}").is_err());
    }

    #[test]
    fn blocks_are_trimmed_and_the_day_is_fixed() {
        let template = "{% for m in messages %}\n    {% if true %}\n{{ m['content'] }}\n    {% endif %}\n{% endfor %}\
            {{ strftime_now('%d %b %Y') }}{{ {'a': '<'} | tojson }}";
        assert_eq!(split(template).unwrap(), ("Judge.\n".to_owned(), "\n26 Jul 2024{\"a\":\"<\"}".to_owned()));
    }

    #[test]
    fn the_template_may_be_a_list_or_a_file_of_its_own() {
        let list =
            json!({"chat_template": [{"name": "tool", "template": "x"}, {"name": "default", "template": CHATML}]});
        assert_eq!(ChatFormat::parse(&list.to_string(), None).unwrap().template, CHATML);
        assert_eq!(ChatFormat::parse("{}", Some(CHATML.to_owned())).unwrap().template, CHATML);
        assert!(ChatFormat::parse("{}", None).unwrap_err().to_string().contains("no chat_template"));
    }
}
