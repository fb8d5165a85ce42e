# PowerShell for a Windows peer under the policy "Secure Server (Require Security)": run it as administrator.
#   netsh has no word for IKEv2, these commands do.
# Remove everything again with: Get-NetIPsecRule -Group Bailiwick | Remove-NetIPsecRule, and the same with
#   NetFirewallRule, NetIPsecMainModeRule, NetIPsecMainModeCryptoSet, NetIPsecQuickModeCryptoSet and
#   NetIPsecPhase1AuthSet
# Windows does not order rules by how specific they are: exemptions come before negotiation, and blocking
#   before permitting
$ErrorActionPreference = 'Stop'
# the offer AES-GCM-256-SHA384-x25519+mlkem768 is left out: Windows does not know it in main mode
# the offer AES-GCM-256-SHA256-x25519 is left out: Windows does not know it in main mode
# the offer AES-GCM-256-SHA256-ecp256 is left out: Windows does not know it in main mode
# the offer AES-GCM-256-SHA384-ecp384 is left out: Windows does not know it in main mode
$mm1 = New-NetIPsecMainModeCryptoProposal -Encryption AES256 -Hash SHA256 -KeyExchange DH19
# the offer AES256-SHA256-modp3072 is left out: Windows does not know it in main mode
$mainMode = New-NetIPsecMainModeCryptoSet -Group 'Bailiwick' -DisplayName 'Secure Server (Require Security)' -Proposal $mm1 -MaxMinutes 480 -ForceDiffieHellman $true

# rule "All IP Traffic"
$qm1_1 = New-NetIPsecQuickModeCryptoProposal -Encapsulation ESP -Encryption AESGCM256 -ESPHash AESGCM256 -MaxMinutes 60
$qm1_2 = New-NetIPsecQuickModeCryptoProposal -Encapsulation ESP -Encryption AESGCM128 -ESPHash AESGCM128 -MaxMinutes 60
$qm1_3 = New-NetIPsecQuickModeCryptoProposal -Encapsulation ESP -Encryption AES256 -ESPHash SHA256 -MaxMinutes 60
$quick1 = New-NetIPsecQuickModeCryptoSet -Group 'Bailiwick' -DisplayName 'Secure Server (Require Security): All IP Traffic' -Proposal $qm1_1,$qm1_2,$qm1_3 -PerfectForwardSecrecyGroup None
$auth1_1 = New-NetIPsecAuthProposal -Machine -Cert -Authority (Read-Host 'name of the authority of the fleet, as CN=..., O=...') -AuthorityType Root -Signing ECDSA256
$auth1 = New-NetIPsecPhase1AuthSet -Group 'Bailiwick' -DisplayName 'Secure Server (Require Security): All IP Traffic' -Proposal $auth1_1
# rule "All IP Traffic": packets that come in clear are dropped, where the policy accepts them (inpass):
#   Windows cannot require security of what it sends alone
New-NetIPsecMainModeRule -Group 'Bailiwick' -DisplayName 'Secure Server (Require Security): All IP Traffic' -MainModeCryptoSet $mainMode.Name -Phase1AuthSet $auth1.Name
New-NetIPsecRule -Group 'Bailiwick' -DisplayName 'Secure Server (Require Security): All IP Traffic 1' -InboundSecurity Require -OutboundSecurity Require -KeyModule IKEv2 -QuickModeCryptoSet $quick1.Name -Phase1AuthSet $auth1.Name

# rule "All ICMP Traffic"
New-NetIPsecRule -Group 'Bailiwick' -DisplayName 'Secure Server (Require Security): All ICMP Traffic 1' -InboundSecurity None -OutboundSecurity None -Protocol ICMPv4
New-NetIPsecRule -Group 'Bailiwick' -DisplayName 'Secure Server (Require Security): All ICMP Traffic 2' -InboundSecurity None -OutboundSecurity None -Protocol ICMPv6
# the default response is left out: Windows since Vista has none, and the rules above answer as well
# multicast and broadcast are never negotiated by Windows, so that they need no exemption
