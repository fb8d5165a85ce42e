#!/usr/bin/python3
"""Writes scapy.txt: ESP packets made by Scapy, an implementation that shares no code with this package.

Run it as ./generate.py > scapy.txt. One line is one packet:
suite mode esn(0/1) spi sequence encryption-key(with salt) integrity-key packet esp
"""
import functools
import hashlib
import hmac
import struct

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scapy.all import ICMP, IP, TCP, UDP, IPv6, Raw, raw
from scapy.layers.inet6 import ICMPv6EchoRequest
from scapy.layers.ipsec import ESP, SecurityAssociation

SUITES = {
    "aes-gcm-128": ("AES-GCM", 20, "NULL", 0),
    "aes-gcm-256": ("AES-GCM", 36, "NULL", 0),
    "chacha20-poly1305": ("CHACHA20-POLY1305", 36, "NULL", 0),
    "aes-cbc-128-sha256": ("AES-CBC", 16, "SHA2-256-128", 32),
    "aes-cbc-256-sha384": ("AES-CBC", 32, "SHA2-384-192", 48),
    "aes-cbc-256-sha512": ("AES-CBC", 32, "SHA2-512-256", 64),
    "null-sha256": ("NULL", 0, "SHA2-256-128", 32),
}
SEQUENCES = {0: (1, 2, 0x01020304, 0xFFFFFFFF), 1: (1, 0xFFFFFFFF, 0x100000001, 0x1234500000007)}


def octets(n, seed):
    out = b""
    while len(out) < n:
        seed = hashlib.sha256(seed).digest()
        out += seed
    return out[:n]


def cbc_iv(key, sequence):
    derived = hmac.new(key, b"ESP AES-CBC IV", hashlib.sha256).digest()
    return Cipher(algorithms.AES(derived), modes.ECB()).encryptor().update(struct.pack(">QQ", 0, sequence))


def sign_esn(packet, key, hash_name, size, high):
    covered = raw(packet[ESP]) + struct.pack(">L", high)
    packet[ESP].data += hmac.new(key, covered, "sha" + hash_name).digest()[:size]
    return packet


def packets():
    for n in (0, 1, 2, 3, 13, 100):
        yield IP(src="192.0.2.1", dst="192.0.2.2", id=n) / UDP(sport=4000, dport=53) / Raw(octets(n, b"udp"))
    yield IP(src="192.0.2.1", dst="192.0.2.2") / TCP(sport=4000, dport=443, flags="PA") / Raw(octets(1300, b"tcp"))
    yield IP(src="192.0.2.1", dst="192.0.2.2", tos=0xB8) / ICMP()
    yield IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=4000, dport=53) / Raw(octets(31, b"udp"))
    yield IPv6(src="2001:db8::1", dst="2001:db8::2", tc=3) / ICMPv6EchoRequest(data=octets(56, b"ping"))


for suite, (crypt, crypt_len, auth, auth_len) in SUITES.items():
    key, auth_key = octets(crypt_len, b"key" + suite.encode()), octets(auth_len, b"auth" + suite.encode())
    for mode in ("transport", "tunnel"):
        for esn in (0, 1):
            for at, packet in enumerate(packets()):
                sequence = SEQUENCES[esn][at % 4]
                version = packet.version
                tunnel = None
                if mode == "tunnel":
                    tunnel = IP(src="198.51.100.1", dst="198.51.100.2")
                association = SecurityAssociation(
                    ESP, spi=0xC0DE0001, crypt_algo=crypt, crypt_key=key, auth_algo=auth, auth_key=auth_key,
                    tunnel_header=tunnel, esn_en=bool(esn), esn=sequence >> 32)
                vars(association.auth_algo).pop("sign", None)  # the algorithms are shared
                if esn and auth != "NULL":
                    # Scapy 2.5 leaves the high half out for ESP (RFC 4303 2.2.1).
                    association.auth_algo.sign = functools.partial(
                        sign_esn, hash_name=auth.split("-")[1], size=int(auth.split("-")[2]) // 8, high=sequence >> 32)
                iv = None
                if crypt == "AES-CBC":
                    iv = cbc_iv(key, sequence)
                elif crypt != "NULL":
                    iv = struct.pack(">Q", sequence)
                plain = raw(packet)
                first = IP(plain) if version == 4 else IPv6(plain)
                sealed = association.encrypt(
                    first, seq_num=sequence & 0xFFFFFFFF, iv=iv, esn_en=bool(esn), esn=sequence >> 32)
                print(suite, mode, esn, "c0de0001", sequence, key.hex() or "-", auth_key.hex() or "-", plain.hex(),
                      raw(sealed[ESP]).hex())
