# ruff: noqa: RUF001 - letters of other scripts are meant

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dia_server.text.language import SAMPLE, language_warning

FOREIGN = [
    ("German", "Guten Morgen, ich habe gestern ein neues Auto gekauft."),
    ("German", "Die Katze sitzt auf dem Dach und schläft."),
    ("German", "[S1] Wo wohnst du? [S2] Ich wohne in Berlin. (laughs)"),
    ("German", "Der Hund war in dem Garten, als die Frau nach Hause kam."),
    ("German", "Das ist nicht mein Problem!"),
    ("French", "Bonjour, comment allez-vous aujourd’hui ?"),
    ("French", "C'est l'histoire d'un homme qui n'avait pas d'amis."),
    ("French", "Je ne sais pas où est la gare."),
    ("French", "Il fait très beau et les enfants jouent dans le jardin."),
    ("Spanish", "Hola, ¿cómo estás? Me llamo Ana y vivo en Madrid."),
    ("Spanish", "El perro de mi vecino no quiere salir de la casa."),
    ("Spanish", "No sé qué hacer con todo esto."),
    ("Italian", "Ciao, come stai? Oggi è una bella giornata."),
    ("Italian", "Non so dove sono le chiavi della macchina."),
    ("Italian", "Il gatto dorme sul divano e non vuole mangiare."),
    ("Portuguese", "Olá, tudo bem? Eu não falo inglês muito bem."),
    ("Portuguese", "O menino foi para a escola com os seus amigos."),
    ("Portuguese", "Hoje o tempo está muito bom aqui em Lisboa."),
    ("Dutch", "Ik heb gisteren een nieuwe fiets gekocht."),
    ("Dutch", "De kinderen spelen in de tuin en het is mooi weer."),
    ("Dutch", "Waar is het station? Dat weet ik niet."),
    ("Polish", "Dzień dobry, nazywam się Anna i mieszkam w Krakowie."),
    ("Polish", "Nie wiem, gdzie są moje klucze."),
    ("Polish", "To jest bardzo dobra książka, ale nie mam teraz czasu."),
    ("German", "Nachricht an alle: the meeting ist morgen, und wir haben noch kein Büro für den Workshop."),
]
OTHER_SCRIPTS = [
    "Привет, как дела?",
    "你好，世界。",
    "こんにちは、元気ですか。",
    "안녕하세요 여러분",
    "مرحبا بالعالم",
    "שלום עולם",
    "Καλημέρα κόσμε",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "[S1] Привет! [S2] (laughs) Это Windows.",
]
ENGLISH = [
    "Hello, world!",
    "",
    "...",
    "12345 67890",
    "😀 😀 😀",
    "The die is cast, and the war was lost in an hour; so man is also a hat.",
    "Die Hard was an old film in our theater.",
    "Am I in an old gift shop? So was Hans in Berlin.",
    "I do want to go on to my house, so do go on and do as I do.",
    "As a matter of fact, no one told me about Rio de Janeiro or the Copa do Brasil.",
    "Juan de la Cruz met Leonardo da Vinci and Ludwig van Beethoven in the park.",
    "Charles de Gaulle met Simone de Beauvoir.",
    "Ursula von der Leyen spoke with Vincent van Gogh.",
    "He said c'est la vie and que sera sera, then ordered a crème brûlée à la carte.",
    "Her je ne sais quoi and joie de vivre made the soirée at the Café de la Paix a success.",
    "The zeitgeist of the kindergarten was pure schadenfreude, über alles.",
    "We had tapas, paella and a piña colada in El Paso, then drove to Los Angeles and Las Vegas.",
    "Der Spiegel and Die Zeit reported that the BMW was built in Munich.",
    "Mañana we go to San José; adiós, amigo!",
    "She ate gnocchi al pesto and a panna cotta con le fragole at La Scala.",
    "def main(argv): for x in range(10): print(x) if x else None",
    "const los = await fetch(url); return los.json();",
    "SELECT id, name FROM users WHERE el = 1 AND la = 2;",
    "https://www.example.de/der/die/das and https://example.fr/le/la/les are links.",
    "[S1] Did you hear that? [S2] (laughs) It was only the wind.",
    "α and β are Greek letters; π is about 3.14.",
    "Nguyễn Văn An moved to Łódź with Björk Guðmundsdóttir.",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit.",
    "No, no, no, no!",
    "Me, a name I call myself.",
    "Ｆｕｌｌ ｗｉｄｔｈ 𝐚𝐧𝐝 𝑏𝑜𝑙𝑑 letters",
    "In was on, as so man. Am an all?",
    "Привет means hello in Russian, and everyone knows it.",
]


@pytest.mark.parametrize(("language", "text"), FOREIGN)
def test_a_text_in_another_language_is_named(language: str, text: str) -> None:
    warning = language_warning(text)

    assert warning is not None
    assert warning.code == "other_language"
    assert warning.message == f"The text seems to be {language}; only English is spoken"


@pytest.mark.parametrize("text", OTHER_SCRIPTS)
def test_a_text_in_another_script_is_recognized(text: str) -> None:
    warning = language_warning(text)

    assert warning is not None
    assert warning.code == "other_script"


@pytest.mark.parametrize("text", ENGLISH)
def test_english_with_names_code_and_loan_words_gives_no_warning(text: str) -> None:
    assert language_warning(text) is None


def test_only_the_beginning_counts() -> None:
    english = "This is the beginning of the text. " * 200

    assert language_warning(english[:SAMPLE] + FOREIGN[0][1] * 500) is None
    assert language_warning(FOREIGN[0][1] * 100 + english) is not None


@settings(max_examples=300, deadline=None, database=None)
@given(st.text(max_size=200))
def test_any_text_is_judged_in_ascii(text: str) -> None:
    warning = language_warning(text)

    assert warning is None or warning.message.isascii()
