"""No secret of the usual shapes stays in a text that goes into a record; ordinary messages stay as they are."""

from __future__ import annotations

import pytest

from harness.machine.scrub import scrub

# Made up. Each is in two pieces, so that no scanner takes this file for a leak.
HEX, MIXED = "0123456789abcdef" * 4, "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7" * 3
SECRETS = [
    "hf" + "_" + MIXED[:34], "api_org" + "_" + MIXED[:34], "ghp" + "_" + MIXED[:36], "gho" + "_" + MIXED[:36],
    "ghu" + "_" + MIXED[:36], "ghs" + "_" + MIXED[:36], "ghr" + "_" + MIXED[:36], "github" + "_pat_" + MIXED[:59],
    "glpat" + "-" + MIXED[:20], "gldt" + "-" + MIXED[:20], "glrt" + "-" + MIXED[:20], "AKIA" + "IOSFODNN7EXAMPLE",
    "ASIA" + "IOSFODNN7EXAMPLE", "xoxb" + "-12345-67890-" + MIXED[:24], "xoxp" + "-12345-67890-" + MIXED[:24],
    "xapp" + "-1-A1-2-" + MIXED[:20], "sk" + "-" + MIXED[:48], "sk" + "-proj-" + MIXED[:48],
    "sk" + "-ant-api03-" + MIXED[:48], "sk" + "_live_" + MIXED[:24], "rk" + "_live_" + MIXED[:24],
    "whsec" + "_" + MIXED[:32], "AIza" + "SyA" + MIXED[:32], "ya29" + "." + MIXED[:40], "GOCSPX" + "-" + MIXED[:28],
    "npm" + "_" + MIXED[:36], "pypi" + "-" + MIXED[:60], "rubygems" + "_" + HEX[:48], "dckr" + "_pat_" + MIXED[:27],
    "SG" + "." + MIXED[:22] + "." + MIXED[:43], HEX[:32] + "-us12", "sq0csp" + "-" + MIXED[:43],
    "SK" + HEX[:32], "AC" + HEX[:32], "dop" + "_v1_" + HEX, "dapi" + HEX[:32], "shpat" + "_" + HEX[:32],
    "PMAK" + "-" + HEX[:24] + "-" + HEX[:34], "lin" + "_api_" + MIXED[:40], "ntn" + "_" + MIXED[:46],
    "glsa" + "_" + MIXED[:32] + "_" + HEX[:8], "NRAK" + "-" + "ABCDEFGHIJ0123456789ABCDEFG", "hvs" + "." + MIXED[:24],
    "dp" + ".pt." + MIXED[:43], "pul" + "-" + HEX[:40], "sntrys" + "_" + MIXED[:40], "r8" + "_" + MIXED[:37],
    "gsk" + "_" + MIXED[:52], "figd" + "_" + MIXED[:40], "tskey" + "-auth-" + MIXED[:20], "123456789:" + MIXED[:35],
    "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0." + MIXED[:43],
]  # fmt: skip
# A variable's name, option or address stays; its value goes. Those before the blank line were let through.
PREFIXES = [
    "HF_TOKEN=", "PGPASSWORD=", "DB_PASSWORD=", "MYSQL_PWD=", "AWS_SECRET_ACCESS_KEY=", "GITHUB_TOKEN: ",
    "WANDB_API_KEY=", "export OPENAI_API_KEY=", "AZURE_CLIENT_SECRET=", "REDIS_PASS" + "WORD='", '"access_token": "',
    "--password ", "--api-key=", "Authorization: Bearer ", "https://user:", "postgres://alice:", "client_secret=",
    "AccountKey=", "?sig=", "&X-Amz-Signature=", "private_key: ", "SLACK_BOT_TOKEN=", "token: ", "password = ",
    "secret=", "api-key = ", "smtp_passwd=", "spring.datasource.password=",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret[:6])
def test_a_token_is_replaced_wherever_it_is(secret):
    for text in (f"401 for {secret}", f"x={secret}&y=1", f"'{secret}'", f"/srv/{secret}/model"):
        assert secret not in scrub(text) and secret[4:20] not in scrub(text), scrub(text)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_value_of_a_secret_s_name_is_replaced(prefix):
    end = {"'": "'", '"': '"'}.get(prefix[-1], "@host/x" if "://" in prefix else " and more")
    clean = scrub(f"run with {prefix}hunter2-x{end}")
    assert "hunter2" not in clean  # stayed: only `token=`, `password=`, `secret=`, `api_key=` as whole words were known
    assert clean.startswith("run with ")


def test_there_are_sixty_shapes_and_more():
    assert len(SECRETS) + len(PREFIXES) >= 60


def test_a_private_key_is_replaced_even_if_it_is_cut_off():
    begin = "-----BEGIN RSA " + "PRIVATE KEY-----"
    assert "MIIEow" not in scrub(f"{begin} MIIEowIBAAKCAQEA")


@pytest.mark.parametrize(
    "text",
    [
        "RuntimeError: CUDA error: invalid device function",
        "ValueError: tokenizer: 12 tokens: too many for max_length=8",
        "KeyError: 'pad_token_id'",
        "File ./harness/worker/main.py, line 12, in run_training",
        "basic training of bearer assets",
        "https://huggingface.co/docs/transformers/model_doc/bert",
        "num_real_tokens=120 num_padded_tokens=128 seconds=0.5",
        "keys: value, monkey=3, key=value",
        "the dataset has 3 columns: text, label, key",
    ],
)
def test_ordinary_messages_stay(text):
    assert scrub(text) == text
