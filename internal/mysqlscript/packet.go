package mysqlscript

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Capabilities the server offers. CLIENT_DEPRECATE_EOF is not among them, so that
// result sets have one form.
const (
	capLongPassword  = 1 << 0
	capFoundRows     = 1 << 1
	capLongFlag      = 1 << 2
	capConnectWithDB = 1 << 3
	capProtocol41    = 1 << 9
	capTransactions  = 1 << 13
	capSecureConn    = 1 << 15
	capMultiResults  = 1 << 17
	capPluginAuth    = 1 << 19
	capConnectAttrs  = 1 << 20
	capAuthLenEnc    = 1 << 21

	capabilities uint32 = capLongPassword | capFoundRows | capLongFlag | capConnectWithDB |
		capProtocol41 | capTransactions | capSecureConn | capMultiResults |
		capPluginAuth | capConnectAttrs | capAuthLenEnc
)

const (
	maxPayload       = 1<<24 - 1 // a packet of this size would be continued by another
	statusAutocommit = 0x0002
	charsetUTF8MB4   = 45
	charsetBinary    = 63
	authPlugin       = "mysql_native_password"
)

// kind is the type of a column, as the protocol writes it.
type kind byte

const (
	kindUint64 kind = 0x08 // LONGLONG, here always unsigned
	kindString kind = 0xfd // VAR_STRING
)

// errTooLarge ends a session whose client sends more than one packet at a time.
var errTooLarge = errors.New("mysqlscript: packets of 16 MiB and more are not spoken here")

// kindOf is the type of a column with these values. It panics where the script
// is wrong, which is found when it is written and not when it is played.
func kindOf(values []any) kind {
	found := kind(0)
	for _, v := range values {
		var k kind
		switch v.(type) {
		case nil:
			continue
		case string:
			k = kindString
		case uint64:
			k = kindUint64
		default:
			panic(fmt.Sprintf("mysqlscript: a row's value is a %T; it must be a string, a uint64 or nil", v))
		}
		if found != 0 && found != k {
			panic("mysqlscript: a column has strings and numbers; it must have one type")
		}
		found = k
	}
	if found == 0 {
		return kindString
	}
	return found
}

// readPacket reads one packet of the client, which the server's next one follows.
func (c *session) readPacket() ([]byte, error) {
	var header [4]byte
	if _, err := io.ReadFull(c.in, header[:]); err != nil {
		return nil, err
	}
	size := int(header[0]) | int(header[1])<<8 | int(header[2])<<16
	if size == 0 || size == maxPayload {
		return nil, errTooLarge
	}
	payload := make([]byte, size)
	_, err := io.ReadFull(c.in, payload)
	c.sequence = header[3] + 1
	return payload, err
}

// write puts a packet behind those that wait to be sent.
func (c *session) write(payload []byte) {
	c.out = appendPacket(c.out, c.sequence, payload)
	c.sequence++
}

// flush sends what has been written, in one go.
func (c *session) flush() error {
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

func appendPacket(b []byte, sequence byte, payload []byte) []byte {
	if len(payload) >= maxPayload {
		panic("mysqlscript: an answer is too large for one packet")
	}
	n := len(payload)
	b = append(b, byte(n), byte(n>>8), byte(n>>16), sequence)
	return append(b, payload...)
}

// writeGreeting writes the server's first packet, the handshake in version 10.
func (c *session) writeGreeting() {
	version := c.script.Version
	if version == "" {
		version = "8.0.36-mysqlscript"
	}
	// 20 bytes and a zero byte that ends them. Every password is right, so that
	// the challenge need not be random.
	const challenge = "abcdefghijklmnopqrst\x00"

	p := []byte{10} // protocol version
	p = append(p, version...)
	p = append(p, 0)
	p = append(p, 1, 0, 0, 0) // connection id
	p = append(p, challenge[:8]...)
	p = append(p, 0)
	abilities := capabilities
	if strings.Contains(version, "MariaDB") {
		abilities &^= capLongPassword // as MariaDB has it, to be recognised
	}
	p = binary.LittleEndian.AppendUint16(p, uint16(abilities&math.MaxUint16))
	p = append(p, charsetUTF8MB4)
	p = binary.LittleEndian.AppendUint16(p, statusAutocommit)
	p = binary.LittleEndian.AppendUint16(p, uint16(capabilities>>16))
	p = append(p, byte(len(challenge)))
	p = append(p, make([]byte, 10)...) // reserved
	p = append(p, challenge[8:]...)
	p = append(p, authPlugin...)
	c.write(append(p, 0))
}

func (c *session) writeOK() {
	// No rows affected, no insert id, status, no warnings.
	c.write([]byte{0x00, 0, 0, statusAutocommit, 0, 0, 0})
}

func (c *session) writeEOF() {
	// No warnings, status.
	c.write([]byte{0xfe, 0, 0, statusAutocommit, 0})
}

func (c *session) writeError(code uint16, message string) {
	c.write(errorPayload(code, message))
}

func errorPayload(code uint16, message string) []byte {
	p := binary.LittleEndian.AppendUint16([]byte{0xff}, code)
	p = append(p, "#HY000"...)
	return append(p, message...)
}

// writePrepared answers COM_STMT_PREPARE. It tells of no columns: what the
// statement answers is not known before it is executed.
func (c *session) writePrepared(id uint32, params int) {
	p := binary.LittleEndian.AppendUint32([]byte{0x00}, id)
	p = binary.LittleEndian.AppendUint16(p, 0) // columns
	p = binary.LittleEndian.AppendUint16(p, uint16(params))
	p = append(p, 0, 0, 0) // filler, warnings
	c.write(p)
	if params == 0 {
		return
	}
	for range params {
		c.write(columnPayload("?", kindString))
	}
	c.writeEOF()
}

// writeResultSet writes a result set of one column, text or binary as the
// statement asked for.
func (c *session) writeResultSet(column string, k kind, values []any) {
	if c.variables {
		c.writeVariables(values)
		return
	}
	c.write([]byte{1}) // columns
	c.write(columnPayload(column, k))
	c.writeEOF()
	for _, v := range values {
		if c.binary {
			c.write(binaryRow(v))
		} else {
			c.write(textRow(v))
		}
	}
	c.writeEOF()
}

// writeVariables answers SHOW VARIABLES: each value is one of wait_timeout's.
func (c *session) writeVariables(values []any) {
	c.write([]byte{2}) // columns
	c.write(columnPayload("Variable_name", kindString))
	c.write(columnPayload("Value", kindString))
	c.writeEOF()
	for _, v := range values {
		c.write(append(textRow("wait_timeout"), textRow(v)...))
	}
	c.writeEOF()
}

func columnPayload(name string, k kind) []byte {
	charset, flags := uint16(charsetUTF8MB4), uint16(0)
	if k == kindUint64 {
		charset, flags = charsetBinary, 0x0020|0x0080 // UNSIGNED, BINARY
	}
	p := appendString(nil, "def") // catalog
	p = appendString(p, "")       // schema
	p = appendString(p, "")       // table
	p = appendString(p, "")       // original table
	p = appendString(p, name)
	p = appendString(p, "") // original name
	p = append(p, 0x0c)     // length of what follows
	p = binary.LittleEndian.AppendUint16(p, charset)
	p = binary.LittleEndian.AppendUint32(p, 1024) // display length
	p = append(p, byte(k))
	p = binary.LittleEndian.AppendUint16(p, flags)
	return append(p, 0, 0, 0) // decimals, filler
}

func textRow(v any) []byte {
	switch v := v.(type) {
	case string:
		return appendString(nil, v)
	case uint64:
		return appendString(nil, strconv.FormatUint(v, 10))
	default:
		return []byte{0xfb} // NULL
	}
}

func binaryRow(v any) []byte {
	switch v := v.(type) {
	case string:
		return appendString([]byte{0x00, 0}, v)
	case uint64:
		return binary.LittleEndian.AppendUint64([]byte{0x00, 0}, v)
	default:
		return []byte{0x00, 1 << 2} // the bitmap of NULLs begins at its third bit
	}
}

// appendString appends a string behind its length.
func appendString(b []byte, s string) []byte {
	switch n := len(s); {
	case n <= 250:
		b = append(b, byte(n))
	case n <= math.MaxUint16:
		b = append(b, 0xfc, byte(n), byte(n>>8))
	default:
		b = append(b, 0xfd, byte(n), byte(n>>8), byte(n>>16))
	}
	return append(b, s...)
}
