"""What signs, units and abbreviations are called in English."""

# ruff: noqa: RUF001, SIM905 - signs that look like others are meant; lists of words are read as text

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "US$": ("US dollar", "US dollars", "cent", "cents"),
    "€": ("euro", "euros", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₩": ("won", "won", "", ""),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
    "₿": ("bitcoin", "bitcoins", "", ""),
    "USD": ("US dollar", "US dollars", "cent", "cents"),
    "EUR": ("euro", "euros", "cent", "cents"),
    "GBP": ("British pound", "British pounds", "penny", "pence"),
    "JPY": ("yen", "yen", "", ""),
    "CAD": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "AUD": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "CHF": ("Swiss franc", "Swiss francs", "centime", "centimes"),
}
"""One and many of each currency, and one and many of its hundredth; "" if it has none."""

SCALES = {
    "k": "thousand",
    "K": "thousand",
    "M": "million",
    "m": "million",
    "mn": "million",
    "B": "billion",
    "b": "billion",
    "bn": "billion",
    "T": "trillion",
    "t": "trillion",
}
"""Letters after an amount of money: "$5M"."""

UNITS = {
    # length, area, volume
    "nm": ("nanometer", "nanometers"),
    "µm": ("micrometer", "micrometers"),
    "mm": ("millimeter", "millimeters"),
    "cm": ("centimeter", "centimeters"),
    "m": ("meter", "meters"),
    "km": ("kilometer", "kilometers"),
    "ft": ("foot", "feet"),
    "yd": ("yard", "yards"),
    "mi": ("mile", "miles"),
    "m²": ("square meter", "square meters"),
    "km²": ("square kilometer", "square kilometers"),
    "m2": ("square meter", "square meters"),
    "km2": ("square kilometer", "square kilometers"),
    "m³": ("cubic meter", "cubic meters"),
    "sq ft": ("square foot", "square feet"),
    "ml": ("milliliter", "milliliters"),
    "mL": ("milliliter", "milliliters"),
    "l": ("liter", "liters"),
    "L": ("liter", "liters"),
    "gal": ("gallon", "gallons"),
    "tbsp": ("tablespoon", "tablespoons"),
    "tsp": ("teaspoon", "teaspoons"),
    # mass
    "mg": ("milligram", "milligrams"),
    "g": ("gram", "grams"),
    "kg": ("kilogram", "kilograms"),
    "oz": ("ounce", "ounces"),
    "lb": ("pound", "pounds"),
    "lbs": ("pound", "pounds"),
    # time
    "ns": ("nanosecond", "nanoseconds"),
    "µs": ("microsecond", "microseconds"),
    "ms": ("millisecond", "milliseconds"),
    "s": ("second", "seconds"),
    "sec": ("second", "seconds"),
    "secs": ("second", "seconds"),
    "min": ("minute", "minutes"),
    "mins": ("minute", "minutes"),
    "h": ("hour", "hours"),
    "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"),
    "yrs": ("year", "years"),
    # speed and temperature
    "km/h": ("kilometer per hour", "kilometers per hour"),
    "kmh": ("kilometer per hour", "kilometers per hour"),
    "mph": ("mile per hour", "miles per hour"),
    "m/s": ("meter per second", "meters per second"),
    "rpm": ("revolution per minute", "revolutions per minute"),
    "°C": ("degree Celsius", "degrees Celsius"),
    "℃": ("degree Celsius", "degrees Celsius"),
    "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "℉": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"),
    # electricity, energy, sound
    "Hz": ("hertz", "hertz"),
    "kHz": ("kilohertz", "kilohertz"),
    "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"),
    "V": ("volt", "volts"),
    "W": ("watt", "watts"),
    "kW": ("kilowatt", "kilowatts"),
    "MW": ("megawatt", "megawatts"),
    "kWh": ("kilowatt hour", "kilowatt hours"),
    "mAh": ("milliamp hour", "milliamp hours"),
    "J": ("joule", "joules"),
    "kJ": ("kilojoule", "kilojoules"),
    "kcal": ("kilocalorie", "kilocalories"),
    "cal": ("calorie", "calories"),
    "dB": ("decibel", "decibels"),
    # computers
    "KB": ("kilobyte", "kilobytes"),
    "kB": ("kilobyte", "kilobytes"),
    "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"),
    "PB": ("petabyte", "petabytes"),
    "KiB": ("kibibyte", "kibibytes"),
    "MiB": ("mebibyte", "mebibytes"),
    "GiB": ("gibibyte", "gibibytes"),
    "kbps": ("kilobit per second", "kilobits per second"),
    "Mbps": ("megabit per second", "megabits per second"),
    "Gbps": ("gigabit per second", "gigabits per second"),
    "MB/s": ("megabyte per second", "megabytes per second"),
    "GB/s": ("gigabyte per second", "gigabytes per second"),
    "fps": ("frame per second", "frames per second"),
    "px": ("pixel", "pixels"),
    "dpi": ("dot per inch", "dots per inch"),
    "MP": ("megapixel", "megapixels"),
}
"""One and many of each unit behind a number."""

FRACTIONS = {
    "½": "one half",
    "⅓": "one third",
    "⅔": "two thirds",
    "¼": "one quarter",
    "¾": "three quarters",
    "⅕": "one fifth",
    "⅛": "one eighth",
    "⅜": "three eighths",
    "⅝": "five eighths",
    "⅞": "seven eighths",
}
DENOMINATORS = {
    "2": ("half", "halves"),
    "3": ("third", "thirds"),
    "4": ("quarter", "quarters"),
    "5": ("fifth", "fifths"),
    "6": ("sixth", "sixths"),
    "7": ("seventh", "sevenths"),
    "8": ("eighth", "eighths"),
    "9": ("ninth", "ninths"),
    "16": ("sixteenth", "sixteenths"),
}

TITLES = {
    "Dr.": "Doctor",
    "Mr.": "Mister",
    "Mrs.": "Missus",
    "Ms.": "Miss",
    "Prof.": "Professor",
    "Gen.": "General",
    "Capt.": "Captain",
    "Lt.": "Lieutenant",
    "Sgt.": "Sergeant",
    "Col.": "Colonel",
    "Rev.": "Reverend",
    "Gov.": "Governor",
    "Sen.": "Senator",
    "Rep.": "Representative",
    "Pres.": "President",
    "Hon.": "Honorable",
    "St.": "Saint",
    "Mt.": "Mount",
    "Ft.": "Fort",
}
"""Abbreviations before a capitalized name."""
STREETS = {"St.": "Street", "Ave.": "Avenue", "Blvd.": "Boulevard", "Rd.": "Road"}
"""Abbreviations after a capitalized name."""
REFERENCES = {
    "No.": "number",
    "no.": "number",
    "Nos.": "numbers",
    "nos.": "numbers",
    "Nr.": "number",
    "Fig.": "figure",
    "fig.": "figure",
    "Figs.": "figures",
    "Vol.": "volume",
    "vol.": "volume",
    "Ch.": "chapter",
    "ch.": "chapter",
    "Sec.": "section",
    "sec.": "section",
    "Eq.": "equation",
    "eq.": "equation",
    "p.": "page",
    "pp.": "pages",
}
"""Abbreviations before a number."""
INNER = {
    "e.g.": "for example",
    "E.g.": "For example",
    "eg.": "for example",
    "i.e.": "that is",
    "I.e.": "That is",
    "vs.": "versus",
    "vs": "versus",
    "approx.": "approximately",
    "ca.": "circa",
    "cf.": "compare",
    "viz.": "namely",
    "esp.": "especially",
    "incl.": "including",
    "est.": "established",
    "resp.": "respectively",
    "w/o": "without",
    "w/": "with",
    "b/c": "because",
    "btw": "by the way",
    "BTW": "by the way",
    "imo": "in my opinion",
    "IMO": "in my opinion",
    "imho": "in my humble opinion",
    "IMHO": "in my humble opinion",
    "tbh": "to be honest",
    "TBH": "to be honest",
    "idk": "I don't know",
    "IDK": "I don't know",
    "fyi": "for your information",
    "FYI": "for your information",
    "afaik": "as far as I know",
    "AFAIK": "as far as I know",
    "iirc": "if I remember correctly",
    "IIRC": "if I remember correctly",
}
"""Abbreviations that end no sentence."""
FINAL = {
    "etc.": "et cetera",
    "et al.": "and others",
    "Inc.": "Incorporated",
    "Ltd.": "Limited",
    "Corp.": "Corporation",
    "Co.": "Company",
    "Jr.": "Junior",
    "Sr.": "Senior",
    "Dept.": "Department",
    "dept.": "department",
    "Bros.": "Brothers",
    "a.m.": "AM",
    "p.m.": "PM",
    "Jan.": "January",
    "Feb.": "February",
    "Aug.": "August",
    "Sept.": "September",
    "Oct.": "October",
    "Nov.": "November",
    "Dec.": "December",
}
"""Abbreviations whose full stop may also end the sentence."""

SIGNS = {
    "&": "and",
    "+": "plus",
    "=": "equals",
    "×": "times",
    "÷": "divided by",
    "±": "plus or minus",
    "≈": "approximately",
    "≠": "is not equal to",
    "≤": "at most",
    "≥": "at least",
    "∞": "infinity",
    "√": "square root of",
    "π": "pi",
    "µ": "micro",
    "Ω": "ohm",
    "°": "degrees",
    "%": "percent",
    "‰": "per mille",
    "§": "section",
    "¶": "",
    "†": "",
    "‡": "",
    "©": "copyright",
    "®": "",
    "™": "",
    "•": ",",
    "·": "",
    "→": "to",
    "⇒": "implies",
    "←": "from",
    "↔": "and",
    "↑": "up",
    "↓": "down",
    "²": "squared",
    "³": "cubed",
    "№": "number",
    "$": "dollars",
    "€": "euros",
    "£": "pounds",
    "|": ",",
    "<": "",
    ">": "",
    "`": "",
    "~": "",
    "^": "",
    "\\": "",
}
"""What is said for a sign that no other rule has dealt with."""

ROMAN_NAMES = (
    "Alexander Charles Catherine Clement Edward Elizabeth Francis Frederick Friedrich George Gregory Gustav "
    "Henry Innocent Ivan James John Julius Leo Leopold Louis Ludwig Mary Napoleon Nicholas Otto Paul Peter "
    "Philip Pius Ptolemy Ramses Ramesses Rameses Richard Urban Victor Wilhelm William Xerxes Darius"
).split()
"""Names of rulers and popes, after which a Roman numeral is an ordinal: "Henry VIII"."""
ROMAN_PARTS = (
    "Act Appendix Article Book Chapter Class Episode Fantasy Grade Group Lesson Level Mark Part Phase "
    "Rocky Round Scene Season Section Stage Step Title Tome Type Unit Volume War Bowl"
).split()
"""Words after which a Roman numeral is a cardinal: "Chapter IV", "World War II", "Super Bowl LVIII"."""

TOP_LEVEL = (
    "com org net edu gov mil io ai dev app co tv uk us ca de fr es nl eu au nz jp cn br ru ch se dk pl ie "
    "info biz xyz tech online site store blog news cloud"
).split()
FILES = (
    "py js ts jsx tsx mjs css html htm xml json yaml yml toml ini cfg conf env md txt rst csv tsv log sql sh "
    "bat ps1 cpp hpp cs java kt rs rb php swift lua ipynb pdf doc docx xls xlsx ppt pptx png jpg "
    "jpeg gif svg webp mp3 mp4 wav ogg flac opus mov avi mkv zip tar gz exe dll lock gguf safetensors"
).split()
"""Endings of file names."""
