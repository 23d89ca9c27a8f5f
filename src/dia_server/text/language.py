"""Recognizes a text that is mostly not English, by its letters and its most frequent words."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from dia_server.text.pauses import PAUSE
from dia_server.text.speakers import CAST_TAG
from dia_server.vocabulary import SOUND_PATTERN

SAMPLE = 4096
"""Characters at the beginning of a text that are looked at, which takes a few milliseconds."""
MIN_WORDS = 4
"""Minimum words of a text whose language is judged."""
MIN_DISTINCT = 2
"""Minimum different words of another language that are not English words too."""
MIN_SHARE = 0.3
"""Minimum share of a text's words that are frequent in another language."""
MAX_ENGLISH = 0.5
"""Maximum English words for each word of another language."""

MARKUP = re.compile(rf"{CAST_TAG.pattern}|{PAUSE.pattern}|{SOUND_PATTERN}", re.IGNORECASE)
WORD = re.compile(r"[^\W\d_]+")
LATIN = re.compile("[a-z\u00aa\u00ba\u00c0-\u02af\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff]", re.IGNORECASE)

FREQUENT = {
    "English": """
        the be is are was were been being am to of and a an in that have has had i it its for not on
        with he she as you your do does did done at this but his her him by from they them their we us
        our my me or will would there what all any if about who whom whose which when where why how make
        made can could should must may might like time just know take people into year good some than
        then now look only come came over think also back after use two first well way even new want
        because these those most more very here no yes so up out one go going got get said say says see
        let please thank thanks hello don t s ll re ve m d didn isn doesn won met die man war hat bin
        son plus comment per fare era sin door wild pod ben tout
    """,
    "German": """
        der die das den dem des ein eine einen einem einer eines und oder aber ich du er sie es wir ihr
        mich dich ihn uns euch mir dir ihm mein meine dein deine sein seine unser unsere ist sind bin
        bist war waren wird werden wurde wurden hat haben habe hatte hatten kann können konnte muss
        müssen soll will wollen nicht kein keine auch nur noch schon sehr mehr so wie was wer wo wann
        warum dass daß wenn als weil ob in im an am auf aus bei mit nach von vom zu zum zur für über
        unter vor um durch gegen ohne bis hier da dort heute morgen gestern jetzt immer nie alle alles
        man sich ja nein guten danke bitte gut diese dieser dieses doch mal dann denn gibt geht
    """,
    "French": """
        le la les l un une des du de d et ou mais je j tu il elle on nous vous ils elles me m te t se s
        moi toi mon ma mes ton ta tes son sa ses notre nos votre vos leur leurs ce c cet cette ces ça
        cela est suis es sommes êtes sont était étaient été être a ai as avons avez ont avait avoir fait
        faire va vais vont peut peux pas ne n plus que qu qui quoi où quand comment pourquoi si dans en
        sur sous avec sans pour par chez entre vers à au aux très bien aussi encore toujours jamais tout
        tous toute toutes oui non merci bonjour y même donc alors comme aujourd hui demain hier ici là
        rien
    """,
    "Spanish": """
        el la los las lo un una unos unas y e o u pero yo tú él ella usted nosotros ellos ellas me te se
        nos le les mi mis tu tus su sus nuestro nuestra es soy eres somos son era eran fue ser está
        estoy están estaba estar ha he han había hay tiene tengo tienen hacer hace puede puedo quiero no
        sí que qué quien quién como cómo cuando cuándo donde dónde por porque para con sin sobre entre
        hasta desde de del al a en muy más menos también ya todo todos toda todas este esta estos estas
        ese esa eso esto hoy mañana ayer aquí ahora siempre nunca nada gracias hola buenos días bien
        vamos si
    """,
    "Italian": """
        il lo la i gli le l un uno una e ed o ma io tu lui lei noi voi loro mi ti si ci vi ne mio mia
        tuo tua suo sua nostro è sono sei siamo siete era erano stato essere ho hai ha abbiamo avete
        hanno aveva avere fare fa può posso devo voglio non più che chi cosa come quando dove perché se
        di del dello della dei degli delle dell d a al allo alla ai agli alle all da dal dalla in nel
        nella nei nelle nell su sul sulla con per tra fra molto anche ancora sempre mai tutto tutti
        tutta tutte questo questa questi queste quello quella oggi domani ieri qui ora sì no grazie ciao
        buongiorno bene c
    """,
    "Portuguese": """
        o a os as um uma uns umas e ou mas eu tu ele ela você vocês nós eles elas me te se nos lhe meu
        minha teu seu sua seus suas nosso nossa é sou és somos são era eram foi ser está estou estão
        estava estar tem tenho têm tinha ter há fazer faz pode posso quero não sim que quem como quando
        onde porque por para pra com sem sobre entre até desde de do da dos das no na nas em num numa ao
        à aos às pelo pela muito mais menos também já todo todos toda todas este esta isto esse essa
        isso aquele aquela hoje amanhã ontem aqui agora sempre nunca nada obrigado obrigada olá bom dia
        bem
    """,
    "Dutch": """
        de het een en of maar ik jij je hij zij ze wij we jullie u mij me jou hem haar ons hun mijn jouw
        zijn is ben bent was waren wordt worden werd heeft heb hebt hebben had kan kunnen kon moet
        moeten zal zullen wil niet geen ook nog al zeer meer zo als wie wat waar wanneer waarom hoe dat
        die dit deze in op aan van voor met naar bij uit over onder door tegen zonder tot te er hier
        daar vandaag morgen gisteren nu altijd nooit alle alles zich ja nee dank goed goede dan toch
        heel gaan gaat
    """,
    "Polish": """
        i w we z ze na do o od po za przez przy dla bez pod nad u a ale lub czy że żeby bo gdy kiedy
        gdzie jak dlaczego co kto nie tak się jest są był była było byli być będzie mam masz ma mają
        miał może można ja ty on ona ono my wy oni mnie mi ci go jej ich mu nas wam mój moja twój jego
        swój ten ta to te tego tej tym tych który która które już jeszcze tylko też także bardzo tu tam
        teraz dzisiaj dziś jutro wczoraj zawsze nigdy wszystko wszyscy nic dzień dobry dziękuję proszę
        cześć więc chcę
    """,
}
"""Frequent words of each language; with those of English are all English words that others have too."""
WORDS = {name: frozenset(words.split()) for name, words in FREQUENT.items()}
ENGLISH = WORDS["English"]
OTHERS = {name: words for name, words in WORDS.items() if words is not ENGLISH}


@dataclass(frozen=True, slots=True)
class TextWarning:
    code: Literal["other_script", "other_language"]
    message: str
    """What was found, in ASCII."""


def language_warning(text: str) -> TextWarning | None:
    """Return a warning if most of `text` is in another script or language than English, else None.

    Looks at the first SAMPLE characters. A short text, and one in a language that OTHERS lacks, gives no
    warning unless its letters are not Latin.
    """
    sample = MARKUP.sub(" ", unicodedata.normalize("NFKC", text[:SAMPLE]))
    words = WORD.findall(sample.lower())
    letters = sum(len(word) for word in words)
    if 2 * len(LATIN.findall("".join(words))) < letters:
        return TextWarning("other_script", "Most letters are not Latin; only English is spoken")
    if language := _language(words):
        return TextWarning("other_language", f"The text seems to be {language}; only English is spoken")
    return None


def _language(words: list[str]) -> str | None:
    """Return the language other than English that most of `words` are in, None if there is none."""
    if len(words) < MIN_WORDS:
        return None
    counts = Counter(words)
    hits = {name: sum(counts[word] for word in known) for name, known in OTHERS.items()}
    language = max(hits, key=lambda name: hits[name])
    known = OTHERS[language]
    own = [word for word in counts if word in known and word not in ENGLISH]
    english = sum(counts[word] for word in ENGLISH if word not in known)
    found = hits[language]
    is_foreign = (
        found >= MIN_SHARE * len(words) and len(own) >= MIN_DISTINCT and english < MAX_ENGLISH * found
    )
    return language if is_foreign else None
