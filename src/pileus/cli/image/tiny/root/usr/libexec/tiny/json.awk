# Prints each scalar of a JSON document (RFC 8259) as one line: its path, a tab, its value.
#
#     {"name": "a", "list": [true, {"x": 1}]}   ->   /name <tab> a,  /list/0 <tab> true,  /list/1/x <tab> 1
#
# In paths and values a backslash, a tab and the ends of lines stand as \\, \t, \n and \r: `printf %b` gives them back.
# Ends with status 1 at what is not JSON, after the lines that came before it.

{ text = text $0 "\n" }

END {
    value("")
    blank()
    if (text != "") exit 1
}

function blank() { sub(/^[ \t\r\n]+/, "", text) }

function take(  first) {
    first = substr(text, 1, 1)
    text = substr(text, 2)
    return first
}

function value(path,  kind) {
    blank()
    kind = substr(text, 1, 1)
    if (kind == "{") object(path)
    else if (kind == "[") array(path)
    else if (kind == "\"") print path "\t" string()
    else if (match(text, /^[-+.0-9A-Za-z]+/)) {
        kind = substr(text, 1, RLENGTH)
        text = substr(text, RLENGTH + 1)
        print path "\t" kind
    } else exit 1
}

function object(path,  key, next_one) {
    take(); blank()
    if (substr(text, 1, 1) == "}") { take(); return }
    do {
        blank()
        if (substr(text, 1, 1) != "\"") exit 1
        key = string()
        blank()
        if (take() != ":") exit 1
        value(path "/" key)
        blank()
        next_one = take()
    } while (next_one == ",")
    if (next_one != "}") exit 1
}

function array(path,  number, next_one) {
    take(); blank()
    if (substr(text, 1, 1) == "]") { take(); return }
    do {
        value(path "/" number++ + 0)
        blank()
        next_one = take()
    } while (next_one == ",")
    if (next_one != "]") exit 1
}

function string(  out, mark) {
    take()
    while (match(text, /["\\]/)) {
        out = out plain(substr(text, 1, RSTART - 1))
        mark = substr(text, RSTART, 1)
        text = substr(text, RSTART + 1)
        if (mark == "\"") return out
        mark = take()
        if (mark == "u") out = out character(code())
        else if (mark == "\\") out = out "\\\\"
        else if (index("ntr", mark)) out = out "\\" mark
        else if (mark != "b" && mark != "f") out = out mark
    }
    exit 1
}

# Raw tabs and line ends are not lawful in a JSON string; they must not break the lines all the same.
function plain(piece) {
    gsub(/[\t\r\n]/, " ", piece)
    return piece
}

function code(  digits, at, number) {
    digits = tolower(substr(text, 1, 4))
    text = substr(text, 5)
    for (at = 1; at <= 4; at++) number = number * 16 + index("0123456789abcdef", substr(digits, at, 1)) - 1
    return number
}

# UTF-8 of a code point; of the two halves of a surrogate pair, the second is read here.
function character(number) {
    if (number >= 55296 && number < 56320 && substr(text, 1, 2) == "\\u") {
        text = substr(text, 3)
        number = 65536 + (number - 55296) * 1024 + code() - 56320
    }
    if (number == 10) return "\\n"
    if (number == 9) return "\\t"
    if (number == 13) return "\\r"
    if (number == 92) return "\\\\"
    if (number < 32) return ""
    if (number < 128) return sprintf("%c", number)
    if (number < 2048) return sprintf("%c%c", 192 + int(number / 64), 128 + number % 64)
    if (number < 65536)
        return sprintf("%c%c%c", 224 + int(number / 4096), 128 + int(number / 64) % 64, 128 + number % 64)
    return sprintf("%c%c%c%c", 240 + int(number / 262144), 128 + int(number / 4096) % 64,
        128 + int(number / 64) % 64, 128 + number % 64)
}
