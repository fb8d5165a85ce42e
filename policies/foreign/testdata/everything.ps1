# PowerShell for a Windows peer under the policy "Everything": run it as administrator. netsh has no word for
#   IKEv2, these commands do.
# Remove everything again with: Get-NetIPsecRule -Group Bailiwick | Remove-NetIPsecRule, and the same with
#   NetFirewallRule, NetIPsecMainModeRule, NetIPsecMainModeCryptoSet, NetIPsecQuickModeCryptoSet and
#   NetIPsecPhase1AuthSet
# Windows does not order rules by how specific they are: exemptions come before negotiation, and blocking
#   before permitting
$ErrorActionPreference = 'Stop'
# the offer AES-GCM-256-SHA256-x25519 is left out: Windows does not know it in main mode
$mm1 = New-NetIPsecMainModeCryptoProposal -Encryption AES256 -Hash SHA384 -KeyExchange DH20
$mainMode = New-NetIPsecMainModeCryptoSet -Group 'Bailiwick' -DisplayName 'Everything' -Proposal $mm1 -MaxMinutes 480 -MaxSessions 2 -ForceDiffieHellman $true
# WEAKER: Windows does not authenticate the whole of IKE_SA_INIT (keyExchange.transcript), and nodes that
#   require it refuse it
# strict revocation is a setting of the machine: Set-NetFirewallSetting -CertValidationLevel RequireCrlCheck
# WEAKER: an authentication counts as long as the IKE SA (keyExchange.reauthentication)
# Windows decides by itself whether tunnels move (keyExchange.mobility)
# Windows does not make childless IKE SAs (keyExchange.childless)

# rule "Chat"
$qm1_1 = New-NetIPsecQuickModeCryptoProposal -Encapsulation ESP -Encryption AESGCM128 -ESPHash AESGCM128 -MaxMinutes 60
$qm1_2 = New-NetIPsecQuickModeCryptoProposal -Encapsulation ESP -Encryption AES256 -ESPHash SHA256 -MaxMinutes 60
$qm1_3 = New-NetIPsecQuickModeCryptoProposal -Encapsulation ESP -Encryption None -ESPHash SHA256 -MaxMinutes 60
$quick1 = New-NetIPsecQuickModeCryptoSet -Group 'Bailiwick' -DisplayName 'Everything: Chat' -Proposal $qm1_1,$qm1_2,$qm1_3 -PerfectForwardSecrecyGroup None
$auth1_1 = New-NetIPsecAuthProposal -Machine -Cert -Authority 'C=US, O="Partner, Inc.", CN=Partner CA' -AuthorityType Root -AccountMapping -ExcludeCAName
# WEAKER: rule "Chat": identities cannot be named (localID "", remoteID "dn:CN=chat,O=Partner\\, Inc."):
#   Windows takes those of the certificate or the address
$auth1 = New-NetIPsecPhase1AuthSet -Group 'Bailiwick' -DisplayName 'Everything: Chat' -Proposal $auth1_1
# WEAKER: rule "Chat": every peer that authenticates is accepted, not only members of
#   CN=Tellers,DC=bank,DC=example (peerGroups)
# rule "Chat": one Child SA is made, not 4 (associations)
New-NetIPsecMainModeRule -Group 'Bailiwick' -DisplayName 'Everything: Chat' -MainModeCryptoSet $mainMode.Name -Phase1AuthSet $auth1.Name
New-NetIPsecRule -Group 'Bailiwick' -DisplayName 'Everything: Chat 1' -InboundSecurity Require -OutboundSecurity Require -KeyModule IKEv2 -QuickModeCryptoSet $quick1.Name -Phase1AuthSet $auth1.Name -InterfaceType Wired -RemoteAddress 192.0.2.0/24 -Protocol TCP -RemotePort 6667-6668
New-NetIPsecRule -Group 'Bailiwick' -DisplayName 'Everything: Chat 2' -InboundSecurity Require -OutboundSecurity Require -KeyModule IKEv2 -QuickModeCryptoSet $quick1.Name -Phase1AuthSet $auth1.Name -InterfaceType Wired -RemoteAddress 192.0.2.9 -Protocol TCP -RemotePort 6697

# rule "Others"
$qm2_1 = New-NetIPsecQuickModeCryptoProposal -Encapsulation ESP -Encryption AESGCM128 -ESPHash AESGCM128 -MaxMinutes 60
$quick2 = New-NetIPsecQuickModeCryptoSet -Group 'Bailiwick' -DisplayName 'Everything: Others' -Proposal $qm2_1 -PerfectForwardSecrecyGroup None
$auth2_1 = New-NetIPsecAuthProposal -Machine -Cert -Authority (Read-Host 'name of the authority of the fleet, as CN=..., O=...') -AuthorityType Root -Signing ECDSA256
# rule "Others": not every version of Windows takes preshared keys with IKEv2: see that an association comes
#   up, and prefer certificates
$auth2_2 = New-NetIPsecAuthProposal -Machine -PreSharedKey (Read-Host 'preshared key others')
$auth2 = New-NetIPsecPhase1AuthSet -Group 'Bailiwick' -DisplayName 'Everything: Others' -Proposal $auth2_1,$auth2_2
# WEAKER: rule "Others": Windows talks in clear at once and negotiates meanwhile, where the policy waits for an
#   answer first (fallback: wait)
New-NetIPsecMainModeRule -Group 'Bailiwick' -DisplayName 'Everything: Others' -MainModeCryptoSet $mainMode.Name -Phase1AuthSet $auth2.Name
New-NetIPsecRule -Group 'Bailiwick' -DisplayName 'Everything: Others 1' -InboundSecurity Request -OutboundSecurity Request -KeyModule IKEv2 -QuickModeCryptoSet $quick2.Name -Phase1AuthSet $auth2.Name

# rule "Syslog"
# WEAKER: rule "Syslog": the filter from me to 192.0.2.77 is for one direction; here it is for both
New-NetIPsecRule -Group 'Bailiwick' -DisplayName 'Everything: Syslog 1' -InboundSecurity None -OutboundSecurity None -RemoteAddress 192.0.2.77 -Protocol UDP -RemotePort 514
New-NetIPsecRule -Group 'Bailiwick' -DisplayName 'Everything: Syslog 2' -InboundSecurity None -OutboundSecurity None -RemoteAddress DNS -Protocol UDP -RemotePort 53

# rule "Telnet"
New-NetFirewallRule -Group 'Bailiwick' -DisplayName 'Everything: Telnet 1 inbound' -Direction Inbound -Action Block -InterfaceType RemoteAccess -Protocol TCP -LocalPort 23
New-NetFirewallRule -Group 'Bailiwick' -DisplayName 'Everything: Telnet 1 outbound' -Direction Outbound -Action Block -InterfaceType RemoteAccess -Protocol TCP -LocalPort 23
# the default response is left out: Windows since Vista has none, and the rules above answer as well
# multicast and broadcast are never negotiated by Windows, so that they need no exemption
New-NetIPsecRule -Group 'Bailiwick' -DisplayName 'Everything: break glass 22' -InboundSecurity None -OutboundSecurity None -Protocol TCP -LocalPort 22
