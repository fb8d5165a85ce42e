# PowerShell for a Windows peer under the policy "Tunnel": run it as administrator. netsh has no word for
#   IKEv2, these commands do.
# Remove everything again with: Get-NetIPsecRule -Group Bailiwick | Remove-NetIPsecRule, and the same with
#   NetFirewallRule, NetIPsecMainModeRule, NetIPsecMainModeCryptoSet, NetIPsecQuickModeCryptoSet and
#   NetIPsecPhase1AuthSet
# Windows does not order rules by how specific they are: exemptions come before negotiation, and blocking
#   before permitting
$ErrorActionPreference = 'Stop'
# the offer AES-GCM-256-SHA384-x25519+mlkem768 is left out: Windows does not know it in main mode
# the offer AES-GCM-256-SHA384-ecp384 is left out: Windows does not know it in main mode
$mm1 = New-NetIPsecMainModeCryptoProposal -Encryption AES256 -Hash SHA256 -KeyExchange DH14
$mainMode = New-NetIPsecMainModeCryptoSet -Group 'Bailiwick' -DisplayName 'Tunnel' -Proposal $mm1 -MaxMinutes 240 -ForceDiffieHellman $true

# rule "To the \"branch\""
$qm1_1 = New-NetIPsecQuickModeCryptoProposal -Encapsulation ESP -Encryption AESGCM256 -ESPHash AESGCM256 -MaxMinutes 30 -MaxKiloBytes 100000
# rule "To the \"branch\"": the offer ESP[CHACHA20-POLY1305] is left out: Windows does not know it
$quick1 = New-NetIPsecQuickModeCryptoSet -Group 'Bailiwick' -DisplayName 'Tunnel: To the "branch"' -Proposal $qm1_1 -PerfectForwardSecrecyGroup DH20
# rule "To the \"branch\"": not every version of Windows takes preshared keys with IKEv2: see that an
#   association comes up, and prefer certificates
$auth1_1 = New-NetIPsecAuthProposal -Machine -PreSharedKey (Read-Host 'preshared key branch')
# WEAKER: rule "To the \"branch\"": identities cannot be named (localID "fqdn:gw.bank.example", remoteID
#   "email:gw@branch.example"): Windows takes those of the certificate or the address
# WEAKER: rule "To the \"branch\"": the postquantum preshared key "quantum" cannot be said
$auth1 = New-NetIPsecPhase1AuthSet -Group 'Bailiwick' -DisplayName 'Tunnel: To the "branch"' -Proposal $auth1_1
New-NetIPsecMainModeRule -Group 'Bailiwick' -DisplayName 'Tunnel: To the "branch"' -MainModeCryptoSet $mainMode.Name -Phase1AuthSet $auth1.Name
New-NetIPsecRule -Group 'Bailiwick' -DisplayName 'Tunnel: To the "branch" 1' -InboundSecurity Require -OutboundSecurity Require -KeyModule IKEv2 -QuickModeCryptoSet $quick1.Name -Phase1AuthSet $auth1.Name -Mode Tunnel -RemoteTunnelEndpoint 198.51.100.1 -LocalTunnelEndpoint 192.0.2.1 -LocalAddress 10.1.0.0/16 -RemoteAddress 10.2.0.0/16
New-NetIPsecRule -Group 'Bailiwick' -DisplayName 'Tunnel: To the "branch" 2' -InboundSecurity Require -OutboundSecurity Require -KeyModule IKEv2 -QuickModeCryptoSet $quick1.Name -Phase1AuthSet $auth1.Name -Mode Tunnel -RemoteTunnelEndpoint 198.51.100.1 -LocalTunnelEndpoint 192.0.2.1 -LocalAddress 10.1.0.0/16 -RemoteAddress 10.3.0.1-10.3.0.6
