"""The shapes of secrets that logs and paths may contain, each with its source.

A shape is a regular expression and its replacement. Most are from the plugins of detect-secrets 1.5.0
(https://github.com/Yelp/detect-secrets/tree/v1.5.0/detect_secrets/plugins) or the rules of gitleaks 8.18
(https://github.com/gitleaks/gitleaks/blob/v8.18.0/config/gitleaks.toml); vendors' pages are named where they differ.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class TokenShape(NamedTuple):
    r"""A shape of a secret.

    Attributes:
        replacement: Text in place of a match; `\1` is what stays, such as the name of a variable.
    """

    pattern: re.Pattern[str]
    replacement: str


def _shape(pattern: str, replacement: str = "[token]") -> TokenShape:
    return TokenShape(re.compile(pattern), replacement)


# Names of variables, options, headers and keys whose value is a secret (detect-secrets: keyword.py).
_NAMES = (
    r"(?:[A-Za-z0-9]+[_.-])*"
    r"(?:[A-Za-z0-9]*(?:token|passw(?:or)?d|passwd|passphrase|pwd|secret)|(?:api|access|account|auth|client|encryption|private|"
    r"secret|signing|storage|license)[_.-]?key|apikey|credentials?|authorization|cookie|sas|dsn)(?:[_.-][A-Za-z0-9]+)*"
)

TOKEN_SHAPES: tuple[TokenShape, ...] = (
    # A private key in PEM form, whole or cut off (detect-secrets: private_key.py).
    _shape(
        r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:.*?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----|.*)",
        "[secret]",
    ),
    # user:password@ and token@ in an address (RFC 3986, section 3.2.1; detect-secrets: basic_auth.py).
    _shape(r"\b([A-Za-z][A-Za-z0-9+.-]*://)[^\s/?#@]+@", r"\1[secret]@"),
    # JSON Web Tokens (RFC 7519; detect-secrets: jwt.py).
    _shape(r"\beyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){1,4}"),
    # Authorization headers (RFC 6750, RFC 7617).
    _shape(r"(?i)\b((?:bearer|basic)\s+)(?=[A-Za-z0-9+/=._~-]*[\d=._~-])[A-Za-z0-9+/=._~-]{8,}", r"\1[secret]"),
    # AWS access key ids (gitleaks: aws-access-token).
    _shape(r"\b(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AIPA|ANPA|ANVA|AROA)[A-Z0-9]{12,}\b"),
    # GitHub's classic and fine-grained tokens (github_token.py; gitleaks: github-fine-grained-pat).
    _shape(r"\b(?:gh[pousr]_[A-Za-z0-9]{8,}|github_pat_[A-Za-z0-9_]{20,})"),
    # GitLab's tokens of every kind (docs.gitlab.com/ee/security/tokens, "Token prefixes").
    _shape(r"\b(?:gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct|oas)-|GR1348941)[A-Za-z0-9_-]{8,}"),
    # Slack's tokens and web hooks (detect-secrets: slack.py).
    _shape(r"\b(?:xox[a-z](?:-[A-Za-z0-9]+)+|xapp-[A-Za-z0-9-]{8,})"),
    _shape(r"(https://hooks\.slack\.com/(?:services|workflows)/)[A-Za-z0-9/+_-]+", r"\1[secret]"),
    # Discord's web hooks and bots (detect-secrets: discord.py), Telegram's bots (telegram_token.py).
    _shape(r"(https://(?:\w+\.)?discord(?:app)?\.com/api/webhooks/)[A-Za-z0-9/_-]+", r"\1[secret]"),
    _shape(r"\b[MNO][A-Za-z\d_-]{23,25}\.[A-Za-z\d_-]{6}\.[A-Za-z\d_-]{27,}"),
    _shape(r"\b\d{8,10}:[A-Za-z0-9_-]{35}\b"),
    # Hugging Face (gitleaks: huggingface-access-token, huggingface-organization-api-token).
    _shape(r"\b(?:hf_|api_org_)[A-Za-z0-9]{8,}"),
    # OpenAI, Anthropic, and others that begin with sk- or rk- (detect-secrets: openai.py); Stripe (stripe.py).
    _shape(r"\b(?:sk|rk)-[A-Za-z0-9_-]{8,}"),
    _shape(r"\b(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{8,}"),
    _shape(r"\bwhsec_[A-Za-z0-9+/=]{16,}"),
    # Google's API keys, OAuth tokens and client secrets (gitleaks: gcp-api-key).
    _shape(r"\bAIza[A-Za-z0-9_-]{30,}"),
    _shape(r"\b(?:ya29\.[A-Za-z0-9_-]{10,}|GOCSPX-[A-Za-z0-9_-]{20,})"),
    # Package registries: npm (npm.py), PyPI (pypi_token.py), RubyGems, Docker Hub (docs.docker.com/security).
    _shape(r"\b(?:npm_[A-Za-z0-9]{20,}|pypi-[A-Za-z0-9_-]{16,}|rubygems_[a-f0-9]{40,}|dckr_[po]at_[A-Za-z0-9_-]{20,})"),
    # SendGrid (sendgrid.py), Mailchimp (mailchimp.py), Square (square_oauth.py), Twilio (twilio.py).
    _shape(r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    _shape(r"\b[0-9a-f]{32}-us\d{1,2}\b"),
    _shape(r"\b(?:sq0(?:csp|atp|idp)-[A-Za-z0-9_-]{20,}|(?:AC|SK)[0-9a-f]{32}\b)"),
    # Clouds and services of gitleaks' rules: DigitalOcean, Databricks, Shopify, Postman, Linear, Notion, Grafana,
    # New Relic, HashiCorp Vault and Terraform, Doppler, Pulumi, Sentry, PlanetScale, Age, Replicate, Groq, Figma.
    _shape(r"\b(?:do[opr]_v1_[a-f0-9]{40,}|dapi[a-f0-9]{32}(?:-\d)?|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32})"),
    _shape(r"\b(?:PMAK-[a-f0-9]{24}-[a-f0-9]{34}|lin_api_[A-Za-z0-9]{20,}|(?:secret|ntn)_[A-Za-z0-9]{40,})"),
    _shape(r"\b(?:glsa_[A-Za-z0-9]{20,}(?:_[a-f0-9]{8})?|glc_[A-Za-z0-9+/=]{20,}|NRAK-[A-Z0-9]{20,})"),
    _shape(r"\b(?:hv[sbr]\.[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{40,})"),
    _shape(r"\b(?:dp\.[a-z]{2,6}\.[A-Za-z0-9]{20,}|pul-[a-f0-9]{40}|sntr[yu]s?_[A-Za-z0-9+/=_-]{20,})"),
    _shape(r"\b(?:pscale_(?:pw|tkn|oauth)_[A-Za-z0-9_=.-]{20,}|AGE-SECRET-KEY-1[A-Z0-9]{20,})"),
    _shape(r"\b(?:r8_[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{20,}|figd_[A-Za-z0-9_-]{20,}|tskey-[a-z]+-[A-Za-z0-9-]{10,})"),
    # NAME=value, NAME: value, "name": "value", --name value; a value in quotes is replaced up to its closing quote.
    _shape(
        rf"(?i)((?<![\w.-])(?:--?)?{_NAMES}[\"']?\s*(?:=|:(?!//))\s*)(?:\"[^\"]*\"|'[^']*'|(?!\[secret\]|\[token\])[^\s,;&\"']+)",
        r"\1[secret]",
    ),
    _shape(rf"(?i)((?<![\w.-])--{_NAMES}\s+)(?!\[|-)\S+", r"\1[secret]"),
    # The account key and signature of Azure's connection strings and addresses (azure_storage_key.py).
    _shape(r"(?i)\b((?:AccountKey|SharedAccessKey)=)[A-Za-z0-9+/=]+", r"\1[secret]"),
    _shape(r"(?i)([?&](?:sig|signature|x-amz-signature|x-goog-signature|key|code)=)[^\s&\"']+", r"\1[secret]"),
)
